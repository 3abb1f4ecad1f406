// The formats with codebooks: which codebook, which grid, and where to sample.
#pragma once

#include "quantizers/rtn_shifted.h"
#include "quantizers/rtn_signed.h"

namespace trit::TRIT_ISA::rtn {

// The halves of `packed`'s entries; levels in units of d · (2 · scale + 1).
constexpr auto kHalvesIq1S = make_halves<4, 3>(kIq1SCodebook);
constexpr auto kHalvesIq2Xxs = make_halves<4, 3>(kIq2XxsCodebook);
constexpr auto kHalvesIq2Xs = make_halves<4, 3>(kIq2XsCodebook);
constexpr auto kHalvesIq2S = make_halves<4, 3>(kIq2SCodebook);
constexpr auto kHalvesIq3Xxs = make_halves<2, 8>(kIq3XxsCodebook);
constexpr auto kHalvesIq3S = make_halves<2, 8>(kIq3SCodebook);
constexpr auto kLevelsIq2 = make_magnitudes(kIq2XxsLevels, 0.125f);
constexpr auto kLevelsIq3Xxs = make_magnitudes(kIq3XxsLevels, 0.25f);
constexpr auto kLevelsIq3S = make_magnitudes(kIq3SLevels, 1.0f);

inline void encode_iq2_xxs(const Rows& rows) {
  encode_codebook<SignedGrid<kHalvesIq2Xxs, kLevelsIq2, true>>(
      rows, {32, 31, 5, {3, 0.35f, 14, 24, false}});
}
inline void encode_iq2_xs(const Rows& rows) {
  encode_codebook<SignedGrid<kHalvesIq2Xs, kLevelsIq2, true>>(
      rows, {16, 31, 5, {3, 0.35f, 14, 24, false}});
}
inline void encode_iq2_s(const Rows& rows) {
  encode_codebook<SignedGrid<kHalvesIq2S, kLevelsIq2, false>>(
      rows, {16, 31, 5, {3, 0.35f, 14, 24, false}});
}
inline void encode_iq3_xxs(const Rows& rows) {
  encode_codebook<SignedGrid<kHalvesIq3Xxs, kLevelsIq3Xxs, true>>(
      rows, {32, 31, 5, {9, 0.8f, 12, 24, false}});
}
inline void encode_iq3_s(const Rows& rows) {
  encode_codebook<SignedGrid<kHalvesIq3S, kLevelsIq3S, false>>(
      rows, {32, 31, 5, {9, 0.8f, 12, 24, false}});
}
inline void encode_iq1_s(const Rows& rows) {
  encode_codebook<ShiftedGrid<kHalvesIq1S, 32, 32>>(rows,
                                                    {32, 15, 3, {0.5f, 0.12f, 12, 20, false}});
}
inline void encode_iq1_m(const Rows& rows) {
  encode_codebook<ShiftedGrid<kHalvesIq1S, 16, 8>>(rows, {16, 15, 3, {0.5f, 0.12f, 12, 20, false}});
}

}  // namespace trit::TRIT_ISA::rtn
