// AVX2 with FMA and F16C: each sixteen-lane value is two registers. AVX-VNNI differs in one
// instruction, the int8 dot, and shares this header.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "isa/half.h"

namespace trit::TRIT_ISA {

constexpr bool kManyRegisters = false;  // sixteen, two of which make a value
constexpr bool kHasTiles = false;
constexpr int kTokens = 4;       // whose sums take half of the registers
constexpr int kFloatTokens = 2;  // two sums each
#if defined(TRIT_ISA_AVXVNNI)
constexpr bool kWideIsSigned = false;
constexpr bool kSumsPairs = false;
#else
constexpr bool kWideIsSigned = true;
constexpr bool kSumsPairs = true;
#endif

struct Floats {
  __m256 lo, hi;
};
struct Ints {
  __m256i lo, hi;
};
struct Bytes {
  __m256i lo, hi;
};

inline __m256i lane_mask(int n) {  // all ones in lanes below n
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline Floats load_first(const float* p, int n) {
  return {_mm256_maskload_ps(p, lane_mask(n)), _mm256_maskload_ps(p + 8, lane_mask(n - 8))};
}
inline void store_first(float* p, Floats a, int n) {
  _mm256_maskstore_ps(p, lane_mask(n), a.lo);
  _mm256_maskstore_ps(p + 8, lane_mask(n - 8), a.hi);
}
inline Floats broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline __m256 load_codes_half(const int8_t* p) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}
inline Floats load_codes(const int8_t* p) { return {load_codes_half(p), load_codes_half(p + 8)}; }
inline uint16_t to_half(float x) { return static_cast<uint16_t>(_cvtss_sh(x, 0)); }
inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Floats fnma(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
struct Doubles {
  __m256d lo, hi;
};
inline Doubles load(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
inline void store(double* p, Doubles a) {
  _mm256_storeu_pd(p, a.lo);
  _mm256_storeu_pd(p + 4, a.hi);
}
inline Doubles broadcast_double(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
inline Doubles fnma(Doubles a, Doubles b, Doubles c) {
  return {_mm256_fnmadd_pd(a.lo, b.lo, c.lo), _mm256_fnmadd_pd(a.hi, b.hi, c.hi)};
}
inline Floats max(Floats a, Floats b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Floats min(Floats a, Floats b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Floats abs(Floats a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline Floats select_less(Floats a, Floats b, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline Floats select_first(int n, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_castsi256_ps(lane_mask(n))),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_castsi256_ps(lane_mask(n - 8)))};
}
inline Ints broadcast_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Floats as_floats(Ints a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline Floats to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline Ints round_to_ints(Floats a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
inline __m256 lookup_half(const float* table, __m256i index) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
inline Floats lookup(const float* table, Ints index) {
  return {lookup_half(table, index.lo), lookup_half(table, index.hi)};
}
template <int n>
inline Floats swap_lanes(Floats a) {
  if constexpr (n == 8) return {a.hi, a.lo};
  if constexpr (n == 4) {
    return {_mm256_permute2f128_ps(a.lo, a.lo, 1), _mm256_permute2f128_ps(a.hi, a.hi, 1)};
  }
  constexpr int order = n == 2 ? 0x4e : 0xb1;
  return {_mm256_permute_ps(a.lo, order), _mm256_permute_ps(a.hi, order)};
}
inline Floats power_of_two(Ints n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.lo, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.hi, bias), 23))};
}
inline void store_bytes(int8_t* p, Ints a) {  // values in −128…127, so packing never saturates
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

inline Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}

inline __m256i four_bytes_everywhere(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}

#if defined(TRIT_ISA_AVXVNNI)

inline __m256i dot4_half(__m256i acc, __m256i codes, __m256i x) {
  return _mm256_dpbusd_avx_epi32(acc, codes, x);
}

#else

// u8 × s8 pairs are summed in 16 bits: 2 · 127 · 127 fits, so codes up to 127 never saturate.
inline __m256i dot4_half(__m256i acc, __m256i codes, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(codes, x);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#endif

inline Ints dot4(Ints acc, Bytes codes, Bytes x) {
  return {dot4_half(acc.lo, codes.lo, x.lo), dot4_half(acc.hi, codes.hi, x.hi)};
}
inline Ints dot4(Ints acc, Bytes codes, const int8_t* x) {
  const __m256i xs = four_bytes_everywhere(x);
  return dot4(acc, codes, Bytes{xs, xs});
}

// Products of codes and x, two of them summed in 16 bits: half of a dot4. A few may be added up
// before they go to 32 bits, as many as codes · 127 · 2 leave room for.
struct Pairs {
  __m256i lo, hi;
};
inline Pairs operator+(Pairs a, Pairs b) {
  return {_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)};
}
inline Pairs multiply_pairs(Bytes codes, const int8_t* x) {
  const __m256i xs = four_bytes_everywhere(x);
  return {_mm256_maddubs_epi16(codes.lo, xs), _mm256_maddubs_epi16(codes.hi, xs)};
}
inline Ints add_pairs(Ints acc, Pairs pairs) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(pairs.lo, ones)),
          _mm256_add_epi32(acc.hi, _mm256_madd_epi16(pairs.hi, ones))};
}

// The same value, about which the compiler knows nothing: it keeps sums in the order of the code.
template <typename Halves>
inline Halves opaque(Halves a) {
  asm volatile("" : "+x"(a.lo), "+x"(a.hi));
  return a;
}

#if defined(TRIT_ISA_AVXVNNI)

inline Ints dot4_wide(Ints acc, Bytes codes, const int8_t* x) { return dot4(acc, codes, x); }

#else

// Codes up to 255 become signed (code − 128) and their sign moves to x: 2 · 128 · 127 fits in 16
// bits.
inline Ints dot4_wide(Ints acc, Bytes codes, const int8_t* x) {
  const __m256i xs = four_bytes_everywhere(x);
  const __m256i flip = _mm256_set1_epi8(-128);
  const __m256i lo = _mm256_xor_si256(codes.lo, flip);
  const __m256i hi = _mm256_xor_si256(codes.hi, flip);
  return {dot4_half(acc.lo, _mm256_abs_epi8(lo), _mm256_sign_epi8(xs, lo)),
          dot4_half(acc.hi, _mm256_abs_epi8(hi), _mm256_sign_epi8(xs, hi))};
}

#endif

// Sums of bytes; see scalar.h. No multiplication, not even by one.
struct Words {
  __m256i lo, hi;
};
inline Words broadcast_word(int16_t x) { return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)}; }
inline Words operator+(Words a, Words b) {
  return {_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)};
}
inline Words even_bytes(const int8_t* x) {
  const __m256i words = _mm256_srai_epi16(_mm256_slli_epi16(four_bytes_everywhere(x), 8), 8);
  return {words, words};
}
inline Words odd_bytes(const int8_t* x) {
  const __m256i words = _mm256_srai_epi16(four_bytes_everywhere(x), 8);
  return {words, words};
}
template <int bit>
inline __m256i add_where_half(__m256i sum, __m256i codes, __m256i x) {
  const __m256i bits = _mm256_set1_epi16(1 << bit);
  const __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(codes, bits), bits);
  return _mm256_add_epi16(sum, _mm256_and_si256(set, x));
}
template <int bit>
inline Words add_where(Words sum, Bytes codes, Words x) {
  return {add_where_half<bit>(sum.lo, codes.lo, x.lo), add_where_half<bit>(sum.hi, codes.hi, x.hi)};
}
inline __m256i add_words_half(__m256i acc, __m256i a) {
  const __m256i low = _mm256_srai_epi32(_mm256_slli_epi32(a, 16), 16);
  return _mm256_add_epi32(acc, _mm256_add_epi32(low, _mm256_srai_epi32(a, 16)));
}
inline Ints add_words(Ints acc, Words a) {
  return {add_words_half(acc.lo, a.lo), add_words_half(acc.hi, a.hi)};
}

// Packed codes; see scalar.h for what each operation means.
inline void store(uint8_t* p, Bytes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
}
inline __m256i load_two(const uint8_t* low, const uint8_t* high) {  // 16 bytes each
  const __m256i r = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
  return _mm256_inserti128_si256(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}
// 8 rows × 16 bytes. Rows i and i + 4 share a register: the transposition stays within its halves.
inline void load_eight(const uint8_t* const* row, int64_t at, __m256i out[4]) {
  __m256i r[4];
  for (int i = 0; i < 4; ++i) r[i] = load_two(row[i] + at, row[i + 4] + at);
  const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]);
  const __m256i b = _mm256_unpackhi_epi32(r[0], r[1]);
  const __m256i c = _mm256_unpacklo_epi32(r[2], r[3]);
  const __m256i d = _mm256_unpackhi_epi32(r[2], r[3]);
  out[0] = _mm256_unpacklo_epi64(a, c);
  out[1] = _mm256_unpackhi_epi64(a, c);
  out[2] = _mm256_unpacklo_epi64(b, d);
  out[3] = _mm256_unpackhi_epi64(b, d);
}
inline void load_rows(const uint8_t* const* row, int64_t at, Bytes out[4]) {
  __m256i lo[4], hi[4];
  load_eight(row, at, lo);
  load_eight(row + 8, at, hi);
  for (int k = 0; k < 4; ++k) out[k] = {lo[k], hi[k]};
}
inline Bytes broadcast_lane(uint32_t x) {
  const __m256i r = _mm256_set1_epi32(static_cast<int>(x));
  return {r, r};
}
inline Bytes operator&(Bytes a, Bytes b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
inline Bytes operator|(Bytes a, Bytes b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
inline Bytes operator^(Bytes a, Bytes b) {
  return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
template <int n>
inline Bytes shift_right(Bytes a) {
  return {_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
}
template <int n>
inline Bytes shift_left(Bytes a) {
  return {_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
}
inline Bytes triple(Bytes a) {
  return {_mm256_add_epi8(a.lo, _mm256_add_epi8(a.lo, a.lo)),
          _mm256_add_epi8(a.hi, _mm256_add_epi8(a.hi, a.hi))};
}
inline __m256i triple_carry_half(__m256i a) {  // one from 86 on, two from 171 on
  const __m256i one = _mm256_set1_epi8(1);
  const __m256i first = _mm256_min_epu8(_mm256_subs_epu8(a, _mm256_set1_epi8(85)), one);
  const __m256i second = _mm256_min_epu8(_mm256_subs_epu8(a, _mm256_set1_epi8(-86)), one);
  return _mm256_add_epi8(first, second);
}
inline Bytes triple_carry(Bytes a) { return {triple_carry_half(a.lo), triple_carry_half(a.hi)}; }
inline Bytes lookup16(const uint8_t* table, Bytes a) {
  const __m256i t =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(t, a.lo), _mm256_shuffle_epi8(t, a.hi)};
}
template <int k>
inline __m256i spread_bits_half(__m256i a) {
  const __m256i first = _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c,
                                         0x08080808, 0x04040404, 0);
  const __m256i bytes = _mm256_shuffle_epi8(a, _mm256_add_epi8(first, _mm256_set1_epi8(k / 2)));
  const __m256i bits = _mm256_set1_epi32(k % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}
template <int k>
inline Bytes spread_bits(Bytes a) {
  return {spread_bits_half<k>(a.lo), spread_bits_half<k>(a.hi)};
}
template <int j>
inline Floats byte_to_floats(Bytes a) {
  const Bytes low = shift_right<8 * j>(a) & broadcast_lane(255);
  return {_mm256_cvtepi32_ps(low.lo), _mm256_cvtepi32_ps(low.hi)};
}
inline Floats low_half_to_floats(Bytes a) {
  const Bytes low = a & broadcast_lane(0xffff);
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.lo, low.hi), 0xd8);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
inline Floats bytes_to_floats(uint64_t low, uint64_t high) {
  const __m128i l = _mm_cvtsi64_si128(static_cast<int64_t>(low));
  const __m128i h = _mm_cvtsi64_si128(static_cast<int64_t>(high));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(l)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(h))};
}
inline __m256 flip_signs_half(__m256 a, uint32_t bits) {  // bit i comes to the top of lane i
  const __m256i left = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  const __m256i moved = _mm256_sllv_epi32(_mm256_set1_epi32(static_cast<int>(bits)), left);
  return _mm256_xor_ps(a, _mm256_and_ps(_mm256_castsi256_ps(moved), _mm256_set1_ps(-0.0f)));
}
inline Floats flip_signs(Floats a, uint32_t bits) {
  return {flip_signs_half(a.lo, bits), flip_signs_half(a.hi, bits >> 8)};
}

// Transposes 8 × 8 dwords held in eight registers.
inline void transpose_dwords(__m256i r[8]) {
  __m256i t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    r[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

inline void transpose(const float* in, int64_t stride, float* out) {
  for (int half = 0; half < 2; ++half) {
    for (int eight = 0; eight < 2; ++eight) {
      __m256i r[8];
      for (int i = 0; i < 8; ++i) {
        const float* p = in + (8 * half + i) * stride + 8 * eight;
        r[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
      }
      transpose_dwords(r);
      for (int i = 0; i < 8; ++i) {
        float* p = out + 16 * (8 * eight + i) + 8 * half;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r[i]);
      }
    }
  }
}

}  // namespace trit::TRIT_ISA
