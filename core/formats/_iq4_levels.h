// The sixteen levels of iq4_nl and iq4_xs (ggml's kvalues_iq4nl).
#pragma once

#include <cstdint>

#include "formats/_panel.h"

namespace trit::TRIT_ISA {

constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
constexpr uint8_t kIq4PanelCodes[16] = {1,   24,  45,  63,  79,  93,  106, 118,  // level + 128
                                        129, 141, 153, 166, 181, 197, 217, 241};

template <typename Out>
inline void store_levels(const Bytes packed[4], int line, Out& out) {
  TRIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    store_line(line + k, lookup16(kIq4PanelCodes, low_nibbles(packed[k])), out);
    store_line(line + k + 4, lookup16(kIq4PanelCodes, high_nibbles(packed[k])), out);
  }
}

}  // namespace trit::TRIT_ISA
