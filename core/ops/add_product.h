// The product of a panel of two-bit codes with a block of tokens by additions alone: no
// instruction multiplies a weight by an activation. Same sums, same order, same bits as the
// products that do (panel_product.h, tile_product.h, formats/_dot.h).
//
// A code is the sum of its bits, so code · x is x where the low bit is set and twice x where the
// high one is: activations are added up in words under masks that the codes' bits are, each bit in
// sums of its own, and those of the high bits are added twice. A group of 32 columns leaves a word
// sixteen additions of at most 127, three times over: 6096, far from what a word holds.
#pragma once

#include "format.h"
#include "isa/isa.h"
#include "ops/panel_input.h"

namespace trit::TRIT_ISA {

// For formats that `can_add`.
class AddProduct {
 public:
  // tiles: codes of the tokens are arranged as AMX's products read them.
  explicit AddProduct(bool tiles) : tiles_(tiles) {}

  void prepare(Panel&, int) const {}

  // totals[width][16] += panel · x.
  void operator()(const PanelInput& in, float* totals) const {
    int token = 0;
    for (; token + kTogether <= in.width; token += kTogether) add<kTogether>(in, token, totals);
    for (; token < in.width; ++token) add<1>(in, token, totals);
  }

 private:
  static constexpr int kTogether = kManyRegisters ? 4 : 1;  // tokens that share the masks
  static constexpr int kLines = kActivationBlock / 4;

  template <int T>
  void add(const PanelInput& in, int first, float* totals) const {
    const int line_step = tiles_ ? 4 : 4 * in.width;
    const int token_step = tiles_ ? kActivationBlock : 4;
    const int8_t* x = in.codes + (tiles_ ? first * kActivationBlock : first * 4);
    const int32_t* starts = in.starts + first;
    const float* scales = in.scales + first;
    for (int block = 0; block < in.columns / kActivationBlock; ++block) {
      Words once[T];
      Words twice[T];
      for (int t = 0; t < T; ++t) once[t] = twice[t] = broadcast_word(0);
      TRIT_UNROLL for (int line = 0; line < kLines; ++line) {
        const int8_t* at = x + line * line_step;
        const Bytes codes = load_bytes(&in.panel.codes[block * kLines + line][0][0]);
        TRIT_UNROLL for (int t = 0; t < T; ++t) {
          const int8_t* four = at + t * token_step;
          const Words even = even_bytes(four);
          const Words odd = odd_bytes(four);
          once[t] = add_where<8>(add_where<0>(once[t], codes, even), codes, odd);
          twice[t] = add_where<9>(add_where<1>(twice[t], codes, even), codes, odd);
        }
      }
      const Floats scale = load(in.panel.scales[block]);
      const Floats zero = scale * broadcast(-kSumZeroFloat);
      for (int t = 0; t < T; ++t) {
        const Ints sum = add_words(broadcast_int(starts[t]), once[t] + twice[t] + twice[t]);
        float* total = totals + kTileRows * (first + t);
        store(total, fma(scaled_sum(sum, scale, zero), broadcast(scales[t]), load(total)));
      }
      x += kActivationBlock * in.width;
      starts += in.width;
      scales += in.width;
    }
  }

  bool tiles_;
};

}  // namespace trit::TRIT_ISA
