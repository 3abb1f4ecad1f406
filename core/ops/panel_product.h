// The product of a panel with a block of tokens in vector registers: a lane is a row of the matrix.
#pragma once

#include "format.h"
#include "isa/isa.h"
#include "ops/panel_input.h"

namespace trit::TRIT_ISA {

// Lines of codes of so many bits whose pairs of products are summed in 16 bits without overflow.
constexpr int pair_lines(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 0; }

// sum[T] += the products of `Lines` lines of codes with x[Lines][T][4].
template <int T, int Lines, int Bits>
inline void add_lines(const uint8_t* lines, const int8_t* x, Ints sum[T]) {
#if defined(TRIT_ISA_AVX2)
  if constexpr (Bits < 8) {
    constexpr int kRun = pair_lines(Bits) < Lines ? pair_lines(Bits) : Lines;
#pragma GCC unroll 4
    for (int first = 0; first < Lines; first += kRun) {
      Pairs pairs[T];
#pragma GCC unroll 8
      for (int i = first; i < first + kRun; ++i) {
        const Bytes w = load_bytes(lines + i * kLineBytes);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          const Pairs product = multiply_pairs(w, x + (i * T + t) * 4);
          pairs[t] = opaque(i == first ? product : pairs[t] + product);
        }
      }
      TRIT_UNROLL for (int t = 0; t < T; ++t) sum[t] = add_pairs(sum[t], pairs[t]);
    }
    return;
  }
#endif
#pragma GCC unroll 8
  for (int i = 0; i < Lines; ++i) {
    const Bytes w = load_bytes(lines + i * kLineBytes);
    TRIT_UNROLL for (int t = 0; t < T; ++t) {
      const int8_t* four = x + (i * T + t) * 4;
      sum[t] = Bits == 8 ? dot4_wide(sum[t], w, four) : dot4(sum[t], w, four);
    }
  }
}

// totals[T][16] += panel · x for T tokens.
template <int T, int Group, bool Mins, int Bits>
inline void multiply_panel(const PanelInput& in, float* totals) {
  constexpr int kGroups = kActivationBlock / Group;
  // Where registers are few the totals stay in memory.
  const auto total = [&](int t) { return totals + kTileRows * t; };
  Floats held[kManyRegisters ? T : 1];
  if constexpr (kManyRegisters) {
    TRIT_UNROLL for (int t = 0; t < T; ++t) held[t] = load(total(t));
  }
  const auto add = [&](int t, auto f) {
    if constexpr (kManyRegisters) {
      held[t] = f(held[t]);
    } else {
      store(total(t), f(load(total(t))));
    }
  };
  for (int block = 0; block < in.columns / kActivationBlock; ++block) {
    Floats part[T];
    for (int g = 0; g < kGroups; ++g) {
      const int group = block * kGroups + g;
      Ints sum[T];
      TRIT_UNROLL for (int t = 0; t < T; ++t) sum[t] = broadcast_int(in.starts[group * T + t]);
      add_lines<T, Group / 4, Bits>(&in.panel.codes[group * (Group / 4)][0][0],
                                    in.codes + group * Group * T, sum);
      const Floats scale = load(in.panel.scales[group]);
      const Floats zero = scale * broadcast(-kSumZeroFloat);
      TRIT_UNROLL for (int t = 0; t < T; ++t) {
        part[t] =
            g == 0 ? scaled_sum(sum[t], scale, zero) : fma(sum_to_floats(sum[t]), scale, part[t]);
      }
    }
    TRIT_UNROLL for (int t = 0; t < T; ++t) {
      add(t, [&](Floats sum) { return fma(part[t], broadcast(in.scales[block * T + t]), sum); });
    }
    if constexpr (Mins) {
      for (int g = block * kGroups; g < (block + 1) * kGroups; ++g) {
        const Floats min = load(in.panel.mins[g]);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          add(t, [&](Floats sum) { return fnma(min, broadcast(in.sums[g * T + t]), sum); });
        }
      }
    }
  }
  if constexpr (kManyRegisters) {
    TRIT_UNROLL for (int t = 0; t < T; ++t) store(total(t), held[t]);
  }
}

template <int Group, bool Mins, int Bits, int T = kTokens>
inline void multiply_width(const PanelInput& in, float* totals) {
  if constexpr (T > 1) {
    if (in.width < T) {
      multiply_width<Group, Mins, Bits, T - 1>(in, totals);
      return;
    }
  }
  multiply_panel<T, Group, Mins, Bits>(in, totals);
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

  // Which formats there can be is checked where they are listed, in formats/formats.cpp.
  static Multiply choose(const Format& format) {
    if (format.code_bits == 8) return multiply_width<32, false, 8>;
    if constexpr (kSumsPairs) {  // codes of other widths differ only where pairs are summed
      if (format.code_bits == 6) return multiply_width<16, false, 6>;
      if (format.code_bits == 5) {
        return format.has_mins ? multiply_width<32, true, 5> : multiply_width<32, false, 5>;
      }
    }
    if (format.group == 16) {
      return format.has_mins ? multiply_width<16, true, 4> : multiply_width<16, false, 4>;
    }
    return format.has_mins ? multiply_width<32, true, 4> : multiply_width<32, false, 4>;
  }

  Multiply multiply_;
};

}  // namespace trit::TRIT_ISA
