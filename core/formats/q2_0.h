// Q2_0: 64 codes of 2 bits under one scale; weight = d · (q − 1).
//
//   0: d fp16   2: 64 fields of 2 bits in order, low bits first
#pragma once

#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

namespace q2_0 {

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 64, row += 18, out += 64) {
    const float d = read_half(row);
    for (int i = 0; i < 64; ++i) {
      out[i] = d * static_cast<float>(((row[2 + i / 4] >> (2 * (i % 4))) & 3) - 1);
    }
  }
}

}  // namespace q2_0

constexpr Format format_q2_0 = {
    .name = "q2_0",
    .ggml_type = 42,
    .block_weights = 64,
    .block_bytes = 18,
    .group = 64,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = q2_0::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
