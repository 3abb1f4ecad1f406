// MXFP4: 32 floats of 4 bits under one power of two (OCP MX 1.0); weight = 2^(e − 128) · level[q].
//
//   0: e, E8M0   1: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <bit>
#include <cstdint>

#include "formats/_block.h"
#include "formats/_fp4_levels.h"

namespace trit::TRIT_ISA {

namespace mxfp4 {

// 2^(e − 128), subnormal for e < 2.
inline float half_scale(uint32_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 32, row += 17, out += 32) {
    const float d = half_scale(row[0]);
    for (int j = 0; j < 16; ++j) {
      out[j] = d * kFp4Levels[row[1 + j] & 15];
      out[j + 16] = d * kFp4Levels[row[1 + j] >> 4];
    }
  }
}

inline void pack(const Block& block, uint8_t* out) {
  out[0] = static_cast<uint8_t>(block.d);
  join_fields<4, 16>(block.codes, out + 1);
}

}  // namespace mxfp4

constexpr Format format_mxfp4 = {
    .name = "mxfp4",
    .ggml_type = 39,
    .block_weights = 32,
    .block_bytes = 17,
    .group = 32,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = mxfp4::decode,
    .unpack = nullptr,
    .pack = mxfp4::pack,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
