// Q1_0: 128 signs under one scale; weight = d where the bit is set, else −d.
//
//   0: d fp16   2: 128 bits in order, low bits first
#pragma once

#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

namespace q1_0 {

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 128, row += 18, out += 128) {
    const float d = read_half(row);
    const float levels[2] = {-d, d};
    for (int i = 0; i < 128; ++i) out[i] = levels[(row[2 + i / 8] >> (i % 8)) & 1];
  }
}

}  // namespace q1_0

constexpr Format format_q1_0 = {
    .name = "q1_0",
    .ggml_type = 41,
    .block_weights = 128,
    .block_bytes = 18,
    .group = 128,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = q1_0::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
