// What the codebook formats share: codebooks as bytes, signs, and the products of one entry.
#pragma once

#include <bit>
#include <cstdint>

#include "formats/_block.h"
#include "formats/_codebooks.h"

namespace trit::TRIT_ISA {

template <int entries, int width>
struct Codebook {
  int8_t weights[entries][width];
};

// Done by the compiler: the library holds the expanded bytes.
template <int width, int entries, int levels>
constexpr Codebook<entries, width> expand(const uint16_t (&packed)[entries],
                                          const int8_t (&level)[levels]) {
  constexpr int kBits = width == 8 ? 2 : 3;
  Codebook<entries, width> book{};
  for (int i = 0; i < entries; ++i) {
    for (int j = 0; j < width; ++j) {
      book.weights[i][j] = level[(packed[i] >> (kBits * j)) & ((1 << kBits) - 1)];
    }
  }
  return book;
}

// Encoders that store seven signs of eight make the number of minus signs even.
inline uint32_t even_signs(uint32_t seven) {
  const uint32_t parity = 0x6996u >> ((seven ^ (seven >> 4)) & 15);
  return seven | ((parity & 1) << 7);
}

// `width` weights: scale · entry, negative where the sign bit is set.
template <int width>
inline void write_signed(const int8_t* entry, uint32_t signs, float scale, float* out) {
  for (int j = 0; j < width; ++j) {
    const float weight = scale * static_cast<float>(entry[j]);
    out[j] = (signs >> j) & 1 ? -weight : weight;
  }
}

// Eight weights of iq1: the whole entry is moved by an eighth.
inline void write_shifted(const int8_t* entry, bool down, float scale, float* out) {
  const float shift = down ? -0.125f : 0.125f;
  for (int j = 0; j < 8; ++j) out[j] = scale * (static_cast<float>(entry[j]) + shift);
}

}  // namespace trit::TRIT_ISA
