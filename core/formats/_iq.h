// What the codebook formats share: codebooks as bytes, signs, and the products of one entry.
#pragma once

#include <bit>
#include <cstdint>

#include "formats/_block.h"
#include "formats/_codebooks.h"

namespace trit::TRIT_ISA {

template <int entries, int width>
struct Codebook {
  uint8_t weights[entries][width];
};

// Done by the compiler: the library holds the expanded bytes, each less the lowest level `base`.
template <int width, int base, int entries, int levels>
constexpr Codebook<entries, width> expand(const uint16_t (&packed)[entries],
                                          const int8_t (&level)[levels]) {
  constexpr int kBits = width == 8 ? 2 : 3;
  Codebook<entries, width> book{};
  for (int i = 0; i < entries; ++i) {
    for (int j = 0; j < width; ++j) {
      const int index = (packed[i] >> (kBits * j)) & ((1 << kBits) - 1);
      book.weights[i][j] = static_cast<uint8_t>(level[index] - base);
    }
  }
  return book;
}

// Encoders that store seven signs of eight make the number of minus signs even.
inline uint32_t even_signs(uint32_t seven) {
  const uint32_t parity = 0x6996u >> ((seven ^ (seven >> 4)) & 15);
  return seven | ((parity & 1) << 7);
}

// Fields of four bits, two a byte.
inline void join_pairs(const uint8_t* fields, int bytes, uint8_t* out) {
  for (int i = 0; i < bytes; ++i) {
    out[i] = static_cast<uint8_t>(fields[2 * i] | fields[2 * i + 1] << 4);
  }
}

// Four times seven signs and the scale of a group on top, as iq2_xxs and iq3_xxs have them.
inline uint32_t signs_and_scale(const Entries& block, int g) {
  uint32_t word = static_cast<uint32_t>(block.scales[g]) << 28;
  for (int i = 0; i < 4; ++i) {
    word |= static_cast<uint32_t>(block.signs[4 * g + i] & 127) << (7 * i);
  }
  return word;
}

// Sixteen weights, two entries of eight: scale · entry, negative where the sign bit is set.
inline void write_signed(const uint8_t* first, const uint8_t* second, uint32_t signs, float scale,
                         float* out) {
  const Floats entries = bytes_to_floats(read_u64(first), read_u64(second));
  store(out, flip_signs(broadcast(scale) * entries, signs));
}

// Sixteen weights, four entries of four.
inline void write_signed(const uint8_t* const entry[4], uint32_t signs, float scale, float* out) {
  const uint64_t low = read_u32(entry[0]) | uint64_t{read_u32(entry[1])} << 32;
  const uint64_t high = read_u32(entry[2]) | uint64_t{read_u32(entry[3])} << 32;
  store(out, flip_signs(broadcast(scale) * bytes_to_floats(low, high), signs));
}

// Sixteen weights of iq1, two entries: digits 0 … 2, less one, each entry moved by its own eighth.
inline void write_shifted(const uint8_t* first, const uint8_t* second, bool first_down,
                          bool second_down, float scale, float* out) {
  const Floats digits = bytes_to_floats(read_u64(first), read_u64(second));
  const Floats shift = select_first(8, broadcast(first_down ? -1.125f : -0.875f),
                                    broadcast(second_down ? -1.125f : -0.875f));
  store(out, broadcast(scale) * (digits + shift));
}

}  // namespace trit::TRIT_ISA
