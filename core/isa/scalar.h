// The vocabulary in plain C++: correct everywhere, and the oracle of the others.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "isa/half.h"

namespace trit::scalar {

constexpr bool kManyRegisters = false;
constexpr bool kHasTiles = false;
constexpr bool kSumsPairs = false;
constexpr int kFloatTokens = 4;
constexpr int kTokens = 4;             // columns of the batch a product handles at once
constexpr bool kWideIsSigned = false;  // dot4_wide already subtracts 128 from each code

struct Floats {
  float v[16];
};
struct Ints {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};

template <typename F>
inline Floats each(F f) {
  Floats r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}

inline Floats load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline void store(float* p, Floats a) { std::memcpy(p, a.v, sizeof a.v); }
inline Floats load_first(const float* p, int n) {
  return each([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store_first(float* p, Floats a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
inline Floats broadcast(float x) {
  return each([&](int) { return x; });
}
inline Floats load_half(const uint16_t* p) {
  return each([&](int i) { return half_to_float(p[i]); });
}
inline Floats load_codes(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
inline uint16_t to_half(float x) { return float_to_half(x); }
inline Floats operator+(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Floats operator-(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Floats operator*(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Floats operator/(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline Floats fma(Floats a, Floats b, Floats c) {  // a·b + c
  return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Floats fnma(Floats a, Floats b, Floats c) {  // c − a·b
  return each([&](int i) { return std::fma(-a.v[i], b.v[i], c.v[i]); });
}
struct Doubles {
  double v[8];
};
inline Doubles load(const double* p) {
  Doubles r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store(double* p, Doubles a) { std::memcpy(p, a.v, sizeof a.v); }
inline Doubles broadcast_double(double x) {
  Doubles r;
  for (double& lane : r.v) lane = x;
  return r;
}
inline Doubles fnma(Doubles a, Doubles b, Doubles c) {
  for (int i = 0; i < 8; ++i) c.v[i] = std::fma(-a.v[i], b.v[i], c.v[i]);
  return c;
}
inline Floats max(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats min(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats abs(Floats a) {
  return each([&](int i) { return std::fabs(a.v[i]); });
}
// where a < b: yes, else no
inline Floats select_less(Floats a, Floats b, Floats yes, Floats no) {
  return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
inline Floats select_first(int n, Floats yes, Floats no) {  // lanes below n
  return each([&](int i) { return i < n ? yes.v[i] : no.v[i]; });
}
inline Ints broadcast_int(int32_t x) {
  Ints r;
  for (int i = 0; i < 16; ++i) r.v[i] = x;
  return r;
}
inline Floats as_floats(Ints a) { return std::bit_cast<Floats>(a); }  // the same bits
inline Floats to_floats(Ints a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline Ints round_to_ints(Floats a) {  // to nearest even
  Ints r;
  for (int i = 0; i < 16; ++i) {
    const bool fits = a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f;  // else as the hardware answers
    r.v[i] = fits ? static_cast<int32_t>(std::nearbyintf(a.v[i])) : INT32_MIN;
  }
  return r;
}
inline Floats lookup(const float* table, Ints index) {  // sixteen entries; index in 0…15
  return each([&](int i) { return table[index.v[i]]; });
}
template <int n>
inline Floats swap_lanes(Floats a) {  // lane i ^ n
  return each([&](int i) { return a.v[i ^ n]; });
}
inline Floats power_of_two(Ints n) {  // 2^n, −126 ≤ n ≤ 127
  return each([&](int i) { return std::bit_cast<float>((n.v[i] + 127) << 23); });
}
inline void store_bytes(int8_t* p, Ints a) {  // the low byte of each lane
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

inline Bytes load_bytes(const uint8_t* p) {
  Bytes r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
template <typename Any>
inline Any opaque(Any a) {  // of which the compiler is to know nothing; here it may
  return a;
}
// acc[lane] += Σ codes[4·lane + j] · x[j], j in 0…3; codes ≤ 127
inline Ints dot4(Ints acc, Bytes codes, Bytes x) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 4 * i; j < 4 * i + 4; ++j) acc.v[i] += codes.v[j] * static_cast<int8_t>(x.v[j]);
  }
  return acc;
}
inline Ints dot4(Ints acc, Bytes codes, const int8_t* x) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 4; ++j) acc.v[i] += codes.v[4 * i + j] * x[j];
  }
  return acc;
}
inline Ints dot4_wide(Ints acc, Bytes codes, const int8_t* x) { return dot4(acc, codes, x); }

// Sums of bytes: 32 × int16, two to a lane.
struct Words {
  int16_t v[32];
};
inline Words broadcast_word(int16_t x) {
  Words r;
  for (int16_t& word : r.v) word = x;
  return r;
}
inline Words operator+(Words a, Words b) {
  for (int i = 0; i < 32; ++i) a.v[i] = static_cast<int16_t>(a.v[i] + b.v[i]);
  return a;
}
inline Words even_bytes(const int8_t* x) {  // x[0] and x[2] in each lane
  Words r;
  for (int i = 0; i < 32; ++i) r.v[i] = x[2 * (i % 2)];
  return r;
}
inline Words odd_bytes(const int8_t* x) {  // x[1] and x[3] in each lane
  return even_bytes(x + 1);
}
// sum + x where bit `bit` of a word of codes is set, else sum
template <int bit>
inline Words add_where(Words sum, Bytes codes, Words x) {
  const Words from = std::bit_cast<Words>(codes);
  for (int i = 0; i < 32; ++i) {
    const int16_t set = static_cast<int16_t>(-((from.v[i] >> bit) & 1));
    sum.v[i] = static_cast<int16_t>(sum.v[i] + (x.v[i] & set));
  }
  return sum;
}
inline Ints add_words(Ints acc, Words a) {  // acc[lane] + both its words
  for (int i = 0; i < 16; ++i) acc.v[i] += a.v[2 * i] + a.v[2 * i + 1];
  return acc;
}

// Packed codes, four bytes to a lane of 32 bits. Compilers turn each of these loops into a few
// vector instructions, which they would not through `each`.
struct Lanes {
  uint32_t v[16];
};
inline Lanes lanes(Bytes a) { return std::bit_cast<Lanes>(a); }
inline Bytes bytes(Lanes a) { return std::bit_cast<Bytes>(a); }

inline void store(uint8_t* p, Bytes a) { std::memcpy(p, a.v, sizeof a.v); }
// Four bytes of each row, from byte `at`.
inline Bytes load_dwords(const uint8_t* const* row, int64_t at) {
  Bytes r;
  for (int i = 0; i < 16; ++i) std::memcpy(r.v + 4 * i, row[i] + at, 4);
  return r;
}
// Sixteen bytes of each row, from byte `at`: out[k] holds bytes 4k … 4k + 3.
inline void load_rows(const uint8_t* const* row, int64_t at, Bytes out[4]) {
  for (int k = 0; k < 4; ++k) out[k] = load_dwords(row, at + 4 * k);
}
inline Bytes broadcast_lane(uint32_t x) {
  Lanes r;
  for (uint32_t& lane : r.v) lane = x;
  return bytes(r);
}
inline Bytes operator&(Bytes a, Bytes b) {
  for (int i = 0; i < 64; ++i) a.v[i] &= b.v[i];
  return a;
}
inline Bytes operator|(Bytes a, Bytes b) {
  for (int i = 0; i < 64; ++i) a.v[i] |= b.v[i];
  return a;
}
inline Bytes operator^(Bytes a, Bytes b) {
  for (int i = 0; i < 64; ++i) a.v[i] ^= b.v[i];
  return a;
}
template <int n>
inline Bytes shift_right(Bytes a) {  // whole lanes: bits cross from byte to byte
  Lanes r = lanes(a);
  for (uint32_t& lane : r.v) lane >>= n;
  return bytes(r);
}
template <int n>
inline Bytes shift_left(Bytes a) {
  Lanes r = lanes(a);
  for (uint32_t& lane : r.v) lane <<= n;
  return bytes(r);
}
inline Bytes triple(Bytes a) {  // 3 · byte mod 256
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(3 * byte);
  return a;
}
inline Bytes triple_carry(Bytes a) {  // ⌊3 · byte / 256⌋
  for (uint8_t& byte : a.v) byte = static_cast<uint8_t>((byte >= 86) + (byte >= 171));
  return a;
}
// table[byte]; bytes below 16
inline Bytes lookup16(const uint8_t* table, Bytes a) {
  Bytes r;
  for (int i = 0; i < 64; ++i) r.v[i] = table[a.v[i]];
  return r;
}
// Byte j of a lane is 16 where bit 4k + j of the lane is set, else 0.
template <int k>
inline Bytes spread_bits(Bytes a) {
  Lanes r = lanes(a);
  for (uint32_t& lane : r.v) {
    const uint32_t four = (lane >> (4 * k)) & 15;
    lane = ((four * 0x00204081) & 0x01010101) << 4;  // copies of `four` 7 bits apart
  }
  return bytes(r);
}
template <int j>
inline Floats byte_to_floats(Bytes a) {  // byte j of each lane
  const Lanes from = lanes(a);
  Floats r;
  for (int i = 0; i < 16; ++i) {
    r.v[i] = static_cast<float>(static_cast<int32_t>((from.v[i] >> (8 * j)) & 255));
  }
  return r;
}
inline Floats low_half_to_floats(Bytes a) {  // the fp16 in the low 16 bits
  const Lanes from = lanes(a);
  return each([&](int i) { return half_to_float(static_cast<uint16_t>(from.v[i])); });
}
// Sixteen unsigned bytes in two words, the first byte lowest.
inline Floats bytes_to_floats(uint64_t low, uint64_t high) {
  uint8_t b[16];
  std::memcpy(b, &low, 8);
  std::memcpy(b + 8, &high, 8);
  Floats r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<float>(b[i]);
  return r;
}
// Changes the sign of lane i where bit i is set.
inline Floats flip_signs(Floats a, uint32_t bits) {
  Lanes r = std::bit_cast<Lanes>(a);
  for (uint32_t i = 0; i < 16; ++i) r.v[i] ^= ((bits >> i) & 1) << 31;
  return std::bit_cast<Floats>(r);
}

// out[column][lane] = in[lane · stride + column], 16 × 16
inline void transpose(const float* in, int64_t stride, float* out) {
  for (int column = 0; column < 16; ++column) {
    for (int lane = 0; lane < 16; ++lane) out[16 * column + lane] = in[lane * stride + column];
  }
}

}  // namespace trit::scalar
