// The product of a panel with a block of tokens in vector registers: a lane is a row of the matrix.
#pragma once

#include "format.h"
#include "isa/isa.h"
#include "ops/panel_input.h"

namespace trit::TRIT_ISA {

// totals[T][16] += panel · x for T tokens.
template <int T, int Group, bool Mins, bool Wide>
inline void multiply_panel(const PanelInput& in, float* totals) {
  constexpr int kGroups = kActivationBlock / Group;
  Floats total[T];
  TRIT_UNROLL for (int t = 0; t < T; ++t) total[t] = load(totals + 16 * t);
  for (int block = 0; block < in.columns / kActivationBlock; ++block) {
    Floats part[T];
    for (int g = 0; g < kGroups; ++g) {
      const int group = block * kGroups + g;
      Ints sum[T];
      TRIT_UNROLL for (int t = 0; t < T; ++t) sum[t] = broadcast_int(in.starts[group * T + t]);
#pragma GCC unroll 8
      for (int i = 0; i < Group / 4; ++i) {
        const int quad = group * (Group / 4) + i;
        const Bytes w = load_bytes(&in.panel.codes[quad][0][0]);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          const int8_t* x = in.codes + (quad * T + t) * 4;
          sum[t] = Wide ? dot4_wide(sum[t], w, x) : dot4(sum[t], w, x);
        }
      }
      const Floats scale = load(in.panel.scales[group]);
      const Floats zero = scale * broadcast(-kSumZeroFloat);
      TRIT_UNROLL for (int t = 0; t < T; ++t) {
        part[t] =
            g == 0 ? scaled_sum(sum[t], scale, zero) : fma(sum_to_floats(sum[t]), scale, part[t]);
      }
    }
    TRIT_UNROLL for (int t = 0; t < T; ++t) {
      total[t] = fma(part[t], broadcast(in.scales[block * T + t]), total[t]);
    }
    if constexpr (Mins) {
      for (int g = 0; g < kGroups; ++g) {
        const int group = block * kGroups + g;
        const Floats min = load(in.panel.mins[group]);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          total[t] = fnma(min, broadcast(in.sums[group * T + t]), total[t]);
        }
      }
    }
  }
  TRIT_UNROLL for (int t = 0; t < T; ++t) store(totals + 16 * t, total[t]);
}

template <int Group, bool Mins, bool Wide, int T = kTokens>
inline void multiply_width(const PanelInput& in, float* totals) {
  if constexpr (T > 1) {
    if (in.width < T) {
      multiply_width<Group, Mins, Wide, T - 1>(in, totals);
      return;
    }
  }
  multiply_panel<T, Group, Mins, Wide>(in, totals);
}

// What the tiles of a matrix have in common.
class PanelProduct {
 public:
  PanelProduct(const Format& format, int) : multiply_(choose(format)) {}

  void prepare(Panel&, int) const {}
  // totals[width][16] += panel · x.
  void operator()(const PanelInput& in, float* totals) const { multiply_(in, totals); }

 private:
  using Multiply = void (*)(const PanelInput&, float*);

  static Multiply choose(const Format& format) {
    if (format.wide) return multiply_width<32, false, true>;
    if (format.group == 16) {
      return format.has_mins ? multiply_width<16, true, false> : multiply_width<16, false, false>;
    }
    return format.has_mins ? multiply_width<32, true, false> : multiply_width<32, false, false>;
  }

  Multiply multiply_;
};

}  // namespace trit::TRIT_ISA
