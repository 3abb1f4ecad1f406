// F32: IEEE 754 single precision, little endian.
#pragma once

#include <cstdint>
#include <cstring>

#include "format.h"
#include "isa/isa.h"

namespace trit::TRIT_ISA {

namespace f32 {

inline void decode(const uint8_t* row, int64_t columns, float* out) {
  std::memcpy(out, row, static_cast<size_t>(columns) * sizeof(float));
}

}  // namespace f32

constexpr Format format_f32 = {
    .name = "f32",
    .ggml_type = 0,
    .block_weights = 1,
    .block_bytes = 4,
    .group = 1,
    .offset = 0,
    .has_mins = false,
    .code_bits = 0,
    .decode = f32::decode,
    .unpack = nullptr,
    .pack = nullptr,
    .pieces = nullptr,
    .panel = nullptr,
    .dot = {},
};

}  // namespace trit::TRIT_ISA
