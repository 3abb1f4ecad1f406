// What the codes, scales and minimums of a format can be, for methods that choose them one by one,
// for the blocks of 32 rows side by side.
#pragma once

#include <cmath>

#include "isa/half.h"
#include "kernels.h"
#include "quantizers/rtn_levels.h"
#include "quantizers/rtn_scale.h"

namespace trit::TRIT_ISA::gptq {

constexpr int kRows = kMomentColumns;  // two registers of them

using Column = float[kRows];

// The nearest half float; the old one where that would be none, or of the other sign.
inline uint16_t nearest_half(double value, uint16_t old) {
  const float half = static_cast<float>(value);
  const uint16_t bits = float_to_half(half);
  const bool sound = std::fabs(half) <= rtn::kHalfMax && ((bits ^ old) & 0x8000u) == 0;
  return sound ? bits : old;
}

// The integers beside the codes; where a format has none, lowest = highest = 1.
struct Integers {
  int lowest, highest;
  bool vary() const { return lowest < highest; }
};

// Calls use(grid, code − grid point, sub_scale, sub_min); false for formats with codebooks.
template <class Use>
inline bool with_grid(const Format& format, Use use) {
  using rtn::Steps;
  constexpr Integers kNone{1, 1}, kNibble{0, 15}, kSix{0, 63}, kSigned{-32, 31}, kByte{-128, 127};
  switch (format.ggml_type) {
    case 2:  // q4_0
      return use(Steps{-8, 7}, 8, kNone, kNone), true;
    case 3:  // q4_1
      return use(Steps{0, 15}, 0, kNone, kNone), true;
    case 6:  // q5_0
      return use(Steps{-16, 15}, 16, kNone, kNone), true;
    case 7:  // q5_1
      return use(Steps{0, 31}, 0, kNone, kNone), true;
    case 8:  // q8_0
      return use(Steps{-127, 127}, 128, kNone, kNone), true;
    case 10:  // q2_k
      return use(Steps{0, 3}, 0, kNibble, kNibble), true;
    case 11:  // q3_k
      return use(Steps{-4, 3}, 4, kSigned, kNone), true;
    case 12:  // q4_k
      return use(Steps{0, 15}, 0, kSix, kSix), true;
    case 13:  // q5_k
      return use(Steps{0, 31}, 0, kSix, kSix), true;
    case 14:  // q6_k
      return use(Steps{-32, 31}, 32, kByte, kNone), true;
    case 20:  // iq4_nl
      return use(rtn::make_levels(), 0, kNone, kNone), true;
    case 23:  // iq4_xs
      return use(rtn::make_levels(), 0, kSigned, kNone), true;
    default:
      return false;
  }
}

}  // namespace trit::TRIT_ISA::gptq
