// What every block of weights shares: reading its half floats, and decoding an unpacked block.
#pragma once

#include <cstdint>
#include <cstring>

#include "format.h"
#include "isa/isa.h"

namespace trit::TRIT_ISA {

// The numbers of a format that its functions are generated from; as in `Format`.
struct Grid {
  int block_weights;
  int block_bytes;
  int group;
  int offset;
  bool has_mins;
};

inline uint16_t read_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
inline uint32_t read_u32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
inline uint64_t read_u64(const uint8_t* p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
inline void write_u16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, sizeof value); }
inline void write_u32(uint8_t* p, uint32_t value) { std::memcpy(p, &value, sizeof value); }
inline void write_u64(uint8_t* p, uint64_t value) { std::memcpy(p, &value, sizeof value); }
inline float read_half(const uint8_t* p) { return half_to_float(read_u16(p)); }

// d alone is the scale: one level, no minimum.
inline void set_one_level(Block& out, uint16_t d) {
  for (int i = 0; i < 16; ++i) out.sub_scale[i] = out.sub_min[i] = 1;
  out.d = d;
  out.dmin = 0;
}

// The format fills in its own scales (and minimums); the rest of the arrays stays zero.
inline void clear_levels(Block& out, uint16_t d, uint16_t dmin) {
  std::memset(out.sub_scale, 0, sizeof out.sub_scale);
  std::memset(out.sub_min, 0, sizeof out.sub_min);
  out.d = d;
  out.dmin = dmin;
}

// The field of `bits` bits at the bottom of each of eight bytes.
template <int bits>
constexpr uint64_t kFields = 0x0101010101010101u * ((1u << bits) - 1);

// Splits `run` bytes into fields of `bits`: byte j holds weights j, j + run, j + 2·run, …, lowest
// bits first. Eight bytes go at a time, as one number.
template <int bits, int run>
inline void split_fields(const uint8_t* in, uint8_t* out) {
  for (int j = 0; j < run; j += 8) {
    const uint64_t packed = read_u64(in + j);
    for (int field = 0; field < 8 / bits; ++field) {
      write_u64(out + field * run + j, (packed >> (field * bits)) & kFields<bits>);
    }
  }
}

template <int bits, int run>
inline void join_fields(const uint8_t* in, uint8_t* out) {
  for (int j = 0; j < run; j += 8) {
    uint64_t packed = 0;
    for (int field = 0; field < 8 / bits; ++field) {
      packed |= (read_u64(in + field * run + j) & kFields<bits>) << (field * bits);
    }
    write_u64(out + j, packed);
  }
}

constexpr uint16_t kHalfSign = 0x8000;  // of an fp16

// q5_0 and q5_1 keep the fifth bits of 32 codes in one word, code i in bit i.
inline void add_fifth_bits(uint32_t bits, uint8_t* codes) {
  for (int i = 0; i < 32; i += 4) {
    const uint32_t four = (bits >> i) & 15;
    const uint32_t spread = (four * 0x00204081u) & 0x01010101u;  // copies of `four` 7 bits apart
    write_u32(codes + i, read_u32(codes + i) | (spread << 4));
  }
}
inline uint32_t fifth_bits(const uint8_t* codes) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>((codes[i] >> 4) & 1) << i;
  return bits;
}

inline Floats read_codes(const uint8_t* codes) {  // sixteen
  return bytes_to_floats(read_u64(codes), read_u64(codes + 8));
}

// Decodes by unpacking. The products are rounded one by one, from the left, as ggml does.
// `levels`: what the block's codes stand for, where they are indices.
template <Grid grid, void (*unpack)(const uint8_t*, Block&), const float* levels = nullptr>
void decode_blocks(const uint8_t* row, int64_t columns, float* out) {
  constexpr int kGroups = grid.block_weights / grid.group;
  for (int64_t first = 0; first < columns; first += grid.block_weights, row += grid.block_bytes) {
    Block block;
    unpack(row, block);
    const float d = half_to_float(block.d);
    const float dmin = half_to_float(block.dmin);
    for (int g = 0; g < kGroups; ++g) {
      const float scale = d * static_cast<float>(block.sub_scale[g]);
      const float min = dmin * static_cast<float>(block.sub_min[g]);
      for (int i = 0; i < grid.group; i += 16, out += 16) {
        Floats factors = read_codes(block.codes + g * grid.group + i);
        if constexpr (levels != nullptr) {
          factors = lookup(levels, round_to_ints(factors));
        } else {
          factors = factors - broadcast(grid.offset);
        }
        const Floats product = broadcast(scale) * factors;
        store(out, grid.has_mins ? product - broadcast(min) : product);
      }
    }
  }
}

}  // namespace trit::TRIT_ISA
