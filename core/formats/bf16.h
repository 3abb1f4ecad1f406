// BF16: the upper half of a float32, little endian.
#pragma once

#include <bit>
#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

namespace bf16 {

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t i = 0; i < columns; ++i) {
    const uint32_t bits = static_cast<uint32_t>(read_u16(row + 2 * i)) << 16;
    std::memcpy(out + i, &bits, sizeof bits);  // keeps a NaN's bits, whatever they are
  }
}

}  // namespace bf16

constexpr Format format_bf16 = {
    .name = "bf16",
    .ggml_type = 30,
    .block_weights = 1,
    .block_bytes = 2,
    .group = 1,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = bf16::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
