// AVX-512 with BW, DQ, VL and VNNI. AMX adds a product of tiles (amx.h) and shares this header.
#pragma once

// GCC 12 warns of the deliberately undefined registers in its own intrinsics (bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstdint>
#include <cstring>

#include "isa/half.h"

namespace trit::TRIT_ISA {

constexpr bool kManyRegisters = true;  // thirty-two
#if defined(TRIT_ISA_AMX)
constexpr bool kHasTiles = true;
constexpr int kTokens = 16;
#else
constexpr bool kHasTiles = false;
constexpr int kTokens = 8;
#endif
constexpr int kFloatTokens = 8;
constexpr bool kSumsPairs = false;
constexpr bool kWideIsSigned = false;

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};
struct Bytes {
  __m512i v;
};

inline __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
inline Floats load_first(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline void store_first(float* p, Floats a, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
inline Floats broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Floats load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Floats load_codes(const int8_t* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
}
inline uint16_t to_half(float x) { return static_cast<uint16_t>(_cvtss_sh(x, 0)); }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats fnma(Floats a, Floats b, Floats c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
struct Doubles {
  __m512d v;
};
inline Doubles load(const double* p) { return {_mm512_loadu_pd(p)}; }
inline void store(double* p, Doubles a) { _mm512_storeu_pd(p, a.v); }
inline Doubles broadcast_double(double x) { return {_mm512_set1_pd(x)}; }
inline Doubles fnma(Doubles a, Doubles b, Doubles c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }

inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats abs(Floats a) { return {_mm512_abs_ps(a.v)}; }
inline Floats select_less(Floats a, Floats b, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
inline Floats select_first(int n, Floats yes, Floats no) {
  return {_mm512_mask_blend_ps(first_lanes(n < 0 ? 0 : n), no.v, yes.v)};
}
inline Ints broadcast_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Floats as_floats(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints round_to_ints(Floats a) { return {_mm512_cvtps_epi32(a.v)}; }
inline Floats lookup(const float* table, Ints index) {
  return {_mm512_permutexvar_ps(index.v, _mm512_loadu_ps(table))};
}
template <int n>
inline Floats swap_lanes(Floats a) {
  if constexpr (n == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
  if constexpr (n == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
  return {_mm512_permute_ps(a.v, n == 2 ? 0x4e : 0xb1)};
}
inline Floats power_of_two(Ints n) {
  const __m512i biased = _mm512_add_epi32(n.v, _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline void store_bytes(int8_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

inline Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// The same value, about which the compiler knows nothing.
template <typename Register>
inline Register opaque(Register a) {
  asm volatile("" : "+v"(a.v));
  return a;
}
inline Ints dot4(Ints acc, Bytes codes, Bytes x) {
  return {_mm512_dpbusd_epi32(acc.v, codes.v, x.v)};
}
// GCC 12 knows no form of the instruction that takes its four bytes from memory.
inline Ints dot4(Ints acc, Bytes codes, const int8_t* x) {
  struct [[gnu::may_alias]] Four {
    int32_t bytes;
  };
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(acc.v)
      : "v"(codes.v), "m"(*reinterpret_cast<const Four*>(x)));
  return acc;
}
inline Ints dot4_wide(Ints acc, Bytes codes, const int8_t* x) { return dot4(acc, codes, x); }

// Sums of bytes; see scalar.h.
struct Words {
  __m512i v;
};
inline Words broadcast_word(int16_t x) { return {_mm512_set1_epi16(x)}; }
inline Words operator+(Words a, Words b) { return {_mm512_add_epi16(a.v, b.v)}; }
inline __m512i four_bytes_everywhere(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}
inline Words even_bytes(const int8_t* x) {
  return {_mm512_srai_epi16(_mm512_slli_epi16(four_bytes_everywhere(x), 8), 8)};
}
inline Words odd_bytes(const int8_t* x) { return {_mm512_srai_epi16(four_bytes_everywhere(x), 8)}; }
template <int bit>
inline Words add_where(Words sum, Bytes codes, Words x) {
  const __mmask32 set = _mm512_test_epi16_mask(codes.v, _mm512_set1_epi16(1 << bit));
  return {_mm512_mask_add_epi16(sum.v, set, sum.v, x.v)};
}
inline Ints add_words(Ints acc, Words a) {
  const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(a.v, 16), 16);
  const __m512i high = _mm512_srai_epi32(a.v, 16);
  return {_mm512_add_epi32(acc.v, _mm512_add_epi32(low, high))};
}

// Packed codes; see scalar.h for what each operation means.
inline void store(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
inline __m256i load_two(const uint8_t* low, const uint8_t* high) {  // 16 bytes each
  const __m256i r = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
  return _mm256_inserti128_si256(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}
// Rows i, i + 4, i + 8 and i + 12 share a register: the transposition stays within its quarters.
inline void load_rows(const uint8_t* const* row, int64_t at, Bytes out[4]) {
  __m512i r[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i low = load_two(row[i] + at, row[i + 4] + at);
    const __m256i high = load_two(row[i + 8] + at, row[i + 12] + at);
    r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]);
  const __m512i b = _mm512_unpackhi_epi32(r[0], r[1]);
  const __m512i c = _mm512_unpacklo_epi32(r[2], r[3]);
  const __m512i d = _mm512_unpackhi_epi32(r[2], r[3]);
  out[0] = {_mm512_unpacklo_epi64(a, c)};
  out[1] = {_mm512_unpackhi_epi64(a, c)};
  out[2] = {_mm512_unpacklo_epi64(b, d)};
  out[3] = {_mm512_unpackhi_epi64(b, d)};
}
inline Bytes broadcast_lane(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
inline Bytes operator&(Bytes a, Bytes b) { return {_mm512_and_si512(a.v, b.v)}; }
inline Bytes operator|(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Bytes operator^(Bytes a, Bytes b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n>
inline Bytes shift_right(Bytes a) {
  return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
inline Bytes shift_left(Bytes a) {
  return {_mm512_slli_epi32(a.v, n)};
}
inline Bytes triple(Bytes a) { return {_mm512_add_epi8(a.v, _mm512_add_epi8(a.v, a.v))}; }
inline Bytes triple_carry(Bytes a) {  // one from 86 on, two from 171 on
  const __m512i one = _mm512_set1_epi8(1);
  const __m512i first = _mm512_min_epu8(_mm512_subs_epu8(a.v, _mm512_set1_epi8(85)), one);
  const __m512i second = _mm512_min_epu8(_mm512_subs_epu8(a.v, _mm512_set1_epi8(-86)), one);
  return {_mm512_add_epi8(first, second)};
}
inline Bytes lookup16(const uint8_t* table, Bytes a) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), a.v)};
}
template <int k>
inline Bytes spread_bits(Bytes a) {
  const __m128i first = _mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
  const __m512i at = _mm512_broadcast_i32x4(_mm_add_epi8(first, _mm_set1_epi8(k / 2)));
  const __m512i bits = _mm512_set1_epi32(k % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010));
  const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(a.v, at), bits);
  return {_mm512_maskz_mov_epi8(set, _mm512_set1_epi8(16))};
}
template <int j>
inline Floats byte_to_floats(Bytes a) {
  constexpr int kZero = static_cast<int>(0x80808000u);
  const __m128i at = _mm_set_epi32(kZero | (12 + j), kZero | (8 + j), kZero | (4 + j), kZero | j);
  return {_mm512_cvtepi32_ps(_mm512_shuffle_epi8(a.v, _mm512_broadcast_i32x4(at)))};
}
inline Floats low_half_to_floats(Bytes a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }
inline Floats bytes_to_floats(uint64_t low, uint64_t high) {
  const __m128i b = _mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b))};
}
inline Floats flip_signs(Floats a, uint32_t bits) {
  const __mmask16 minus = static_cast<__mmask16>(bits);
  return {_mm512_mask_xor_ps(a.v, minus, a.v, _mm512_set1_ps(-0.0f))};
}

// Transposes 16 × 16 dwords held in sixteen registers.
inline void transpose_dwords(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

inline void transpose(const float* in, int64_t stride, float* out) {
  __m512i r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(in + i * stride);
  transpose_dwords(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + 16 * i, r[i]);
}

}  // namespace trit::TRIT_ISA
