// NVFP4: 64 floats of 4 bits, a scale of 8 bits for each 16; weight = scale / 2 · level[q].
//
//   0: four scales, UE4M3   4: four runs of 8 bytes, byte j holds weight j (low nibble) and 8 + j
//   (high)
#pragma once

#include <bit>
#include <cstdint>

#include "formats/_block.h"
#include "formats/_fp4_levels.h"

namespace trit::TRIT_ISA {

namespace nvfp4 {

// Four bits of exponent (bias 7), three of mantissa; the top bit is not read, and 0x7f is zero, as
// in ggml.
inline float half_scale(uint32_t code) {
  const uint32_t exponent = (code >> 3) & 15;
  const uint32_t mantissa = code & 7;
  if (code == 0x7f) return 0.0f;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return std::bit_cast<float>(((exponent + 119) << 23) | (mantissa << 20));
}

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  for (int64_t first = 0; first < columns; first += 64, row += 36) {
    for (int g = 0; g < 4; ++g, out += 16) {
      const float d = half_scale(row[g]);
      for (int j = 0; j < 8; ++j) {
        out[j] = d * kFp4Levels[row[4 + 8 * g + j] & 15];
        out[j + 8] = d * kFp4Levels[row[4 + 8 * g + j] >> 4];
      }
    }
  }
}

}  // namespace nvfp4

constexpr Format format_nvfp4 = {
    .name = "nvfp4",
    .ggml_type = 40,
    .block_weights = 64,
    .block_bytes = 36,
    .group = 16,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = nvfp4::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
