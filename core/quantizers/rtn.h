// Importance-weighted rounding to nearest: chooses codes and scales for every format that trit
// writes.
//
// Minimises Σ importance · (weight − value)² block by block; without importance every weight counts
// alike. The searches differ by the shape of the grid, not by the format: one table row per format
// says which search, and how far and how finely it samples. Formats are told apart by their GGUF
// type only there.
#pragma once

#include "quantizers/rtn_codebooks.h"
#include "quantizers/rtn_levels.h"
#include "quantizers/rtn_mxfp4.h"
#include "quantizers/rtn_plain.h"
#include "quantizers/rtn_super.h"
#include "quantizers/rtn_super_affine.h"

namespace trit::TRIT_ISA {

namespace rtn {

// Levels, then where to sample: see Samples and Ends. Fitted to Gaussian, Student-t and trained
// weights.
inline void encode_q4_0(const Rows& rows) {
  encode_scaled(rows, Steps{-8, 7}, {5.5f, 0.5f, 8, 16, true}, 8);
}
inline void encode_q5_0(const Rows& rows) {
  encode_scaled(rows, Steps{-16, 15}, {12, 0.6f, 10, 20, true}, 16);
}
inline void encode_q8_0(const Rows& rows) {  // −128 stays unused: some readers negate codes
  encode_scaled(rows, Steps{-127, 127}, {116, 1, 12, 24, false}, 128);
}
inline void encode_iq4_nl(const Rows& rows) {
  encode_scaled(rows, make_levels(), {85, 7, 9, 18, true}, 0);
}
inline void encode_tq(const Rows& rows) {
  encode_scaled(rows, Steps{-1, 1}, {1, 0.35f, 10, 20, false}, 1);
}
inline void encode_q4_1(const Rows& rows) { encode_affine(rows, 15, {-0.05f, 0.03f, 4, 6}); }
inline void encode_q5_1(const Rows& rows) { encode_affine(rows, 31, {-0.03f, 0.02f, 4, 6}); }

inline void encode_q3_k(const Rows& rows) {
  encode_super(rows, Steps{-4, 3}, {16, 16, -32, 31, 4, {2.5f, 0.4f, 8, 16, true}});
}
inline void encode_q6_k(const Rows& rows) {
  encode_super(rows, Steps{-32, 31}, {16, 16, -128, 127, 32, {24, 1, 10, 16, true}});
}
inline void encode_iq4_xs(const Rows& rows) {
  encode_super(rows, make_levels(), {8, 32, -32, 31, 0, {85, 7, 9, 18, true}});
}

inline void encode_q2_k(const Rows& rows) {
  encode_super_affine(rows, {16, 16, 3, 15, {-0.2f, 0.15f, 4, 6}});
}
inline void encode_q4_k(const Rows& rows) {
  encode_super_affine(rows, {8, 32, 15, 63, {-0.05f, 0.03f, 4, 6}});
}
inline void encode_q5_k(const Rows& rows) {
  encode_super_affine(rows, {8, 32, 31, 63, {-0.03f, 0.02f, 4, 6}});
}

struct Encoder {
  uint32_t ggml_type;
  void (*encode)(const Rows&);
};

constexpr Encoder kEncoders[] = {
    {0, copy_floats},     {1, round_to_halves},   {2, encode_q4_0},     {3, encode_q4_1},
    {6, encode_q5_0},     {7, encode_q5_1},       {8, encode_q8_0},     {10, encode_q2_k},
    {11, encode_q3_k},    {12, encode_q4_k},      {13, encode_q5_k},    {14, encode_q6_k},
    {16, encode_iq2_xxs}, {17, encode_iq2_xs},    {18, encode_iq3_xxs}, {19, encode_iq1_s},
    {20, encode_iq4_nl},  {21, encode_iq3_s},     {22, encode_iq2_s},   {23, encode_iq4_xs},
    {29, encode_iq1_m},   {30, round_to_bfloats}, {34, encode_tq},      {35, encode_tq},
    {39, encode_mxfp4},
};

}  // namespace rtn

// See Kernels::quantize_rows. `columns` is a multiple of the format's block.
bool quantize_rows(const Format& format, const float* weights, int64_t rows, int64_t columns,
                   const float* importance, uint8_t* out) {
  for (const rtn::Encoder& encoder : rtn::kEncoders) {
    if (encoder.ggml_type != format.ggml_type) continue;
    const int64_t blocks = rows * (columns / format.block_weights);
    encoder.encode({format, weights, importance, columns, blocks, out});
    return true;
  }
  return false;
}

}  // namespace trit::TRIT_ISA
