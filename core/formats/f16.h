// F16: IEEE 754 half precision, little endian.
#pragma once

#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

namespace f16 {

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  int64_t i = 0;
  for (; i + 16 <= columns; i += 16) {
    uint16_t halves[16];  // the row may lie at an odd address
    std::memcpy(halves, row + 2 * i, sizeof halves);
    store(out + i, load_half(halves));
  }
  for (; i < columns; ++i) out[i] = read_half(row + 2 * i);
}

}  // namespace f16

constexpr Format format_f16 = {
    .name = "f16",
    .ggml_type = 1,
    .block_weights = 1,
    .block_bytes = 2,
    .group = 1,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = f16::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
