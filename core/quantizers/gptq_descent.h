// Descent: what feedback chose column by column, never looking back, is improved one by one.
//
// With errors e = w − v and the gradient g = e·H of the loss e·H·eᵀ, moving e by −δ·t, t a pattern
// over columns, changes the loss by −2δ · t·g + δ² · t·H·tᵀ: least at δ = t·g / t·H·tᵀ, and a
// parabola around that, so of the values that a code, an integer scale or minimum can have the one
// nearest to it is the best. A code's pattern is its column, a scale's the points it multiplies.
// The block's own d and dmin come last, both at once. But for the rounding of sums nothing that is
// done makes a row worse.
#pragma once

#include "kernels.h"
#include "ops/moments.h"
#include "quantizers/gptq_grid.h"

namespace trit::TRIT_ISA::gptq {

using rtn::inverse;
using rtn::kMaxBlock;
using rtn::kMaxBlockGroups;
using rtn::zeros;

constexpr float kLeast = 0x1p-100f;  // curvature: less would make numbers of its inverse too large

template <class Grid>
class Descender {
 public:
  Descender(const DescentBlock& block, const Grid& grid, float offset, Integers scales,
            Integers minimums)
      : b_(block),
        format_(*block.format),
        grid_(grid),
        offset_(offset),
        scales_(scales),
        minimums_(minimums) {}

  void run() {
    load_block();
    for (int first = 0; first < b_.columns; first += kMomentColumns) improve_panel(first);
    improve_halves();
    store_block();
  }

 private:
  const DescentBlock& b_;
  const Format& format_;
  const Grid& grid_;
  float offset_;
  Integers scales_, minimums_;
  Block blocks_[kRows];
  alignas(64) Column points_[kMaxBlock];
  alignas(64) Column moved_[kMomentColumns];  // what the errors of a panel lose
  alignas(64) Column sub_scale_[kMaxBlockGroups], sub_min_[kMaxBlockGroups];
  alignas(64) Column d_, dmin_;

  int group(int j) const { return j / format_.group; }
  const float* gram(int row, int panel) const {
    return b_.gram + panel * b_.stride + row * kMomentColumns;
  }
  Floats scale(int g, int at) const { return load(d_ + at) * load(sub_scale_[g] + at); }
  Floats minimum(int g, int at) const { return load(dmin_ + at) * load(sub_min_[g] + at); }

  void load_block() {
    for (int row = 0; row < kRows; ++row) {
      Block& block = blocks_[row];
      format_.unpack(b_.packed + row * format_.block_bytes, block);
      for (int j = 0; j < b_.columns; ++j) points_[j][row] = block.codes[j];
      for (int g = 0; g < b_.columns / format_.group; ++g) {
        sub_scale_[g][row] = block.sub_scale[g];
        sub_min_[g][row] = format_.has_mins ? block.sub_min[g] : 0.0f;
      }
      d_[row] = half_to_float(block.d);
      dmin_[row] = format_.has_mins ? half_to_float(block.dmin) : 0.0f;
    }
    for (int j = 0; j < b_.columns; ++j) {
      for (int at = 0; at < kRows; at += 16) {
        store(points_[j] + at, grid_.point(load(points_[j] + at), offset_));
      }
    }
  }

  // Codes, scales and minimums of 32 columns; the gradients of the block follow.
  void improve_panel(int first) {
    std::memset(moved_, 0, sizeof(Column) * kMomentColumns);
    for (int j = first; j < first + kMomentColumns; ++j) improve_code(j, first);
    for (int j = first; j < first + kMomentColumns; j += format_.group) {
      if (scales_.vary()) improve_scale(j, first);
      if (minimums_.vary()) improve_minimum(j, first);
    }
    for (int c = 0; c < kMomentColumns; ++c) {
      for (int at = 0; at < kRows; at += 16) {
        store(moved_[c] + at, zeros() - load(moved_[c] + at));
      }
    }
    for (int panel = 0; panel < b_.columns / kMomentColumns; ++panel) {
      if (panel * kMomentColumns == first) continue;
      add_products(moved_[0], gram(first, panel), kMomentColumns,
                   b_.gradients + panel * kMomentColumns * kRows);
    }
  }

  void improve_code(int j, int first) {
    const int panel = first / kMomentColumns;
    const float curvature = gram(j, panel)[j - first] + b_.damping[j];
    if (!(curvature > kLeast)) return;
    const Floats step = broadcast(1.0f / curvature);
    float* gradient = b_.gradients + j * kRows;
    bool any = false;
    alignas(64) Column moves;
    for (int at = 0; at < kRows; at += 16) {
      const Floats scale = this->scale(group(j), at);
      const Floats old = load(points_[j] + at);
      const Floats wish = old + load(gradient + at) * step * inverse(scale);
      const Floats point = select_less(zeros(), abs(scale), grid_.snap(wish), old);
      const Floats move = scale * (point - old);
      store(points_[j] + at, point);
      store(moves + at, move);
      store(moved_[j - first] + at, load(moved_[j - first] + at) + move);
    }
    for (int row = 0; row < kRows; ++row) any |= moves[row] != 0.0f;
    if (!any) return;
    const float* row = gram(j, panel);
    for (int at = 0; at < kRows; at += 16) {
      const Floats move = load(moves + at);
      for (int c = 0; c < kMomentColumns; ++c) {
        float* to = b_.gradients + (first + c) * kRows + at;
        store(to, fnma(move, broadcast(row[c]), load(to)));
      }
      store(gradient + at, fnma(move, broadcast(b_.damping[j]), load(gradient + at)));
    }
  }

  void improve_scale(int j, int first) {
    improve_group(j, first, scales_, sub_scale_[group(j)],
                  [&](int column, int at) { return load(d_ + at) * load(points_[column] + at); });
  }
  void improve_minimum(int j, int first) {
    improve_group(j, first, minimums_, sub_min_[group(j)],
                  [&](int, int at) { return zeros() - load(dmin_ + at); });
  }

  // An integer of the group from column j on; errors lose pattern for each that it grows.
  template <class Pattern>
  void improve_group(int j, int first, Integers range, float* integers, Pattern pattern) {
    const int panel = first / kMomentColumns;
    alignas(64) Column products[kMomentColumns];  // of the pattern with H
    for (int at = 0; at < kRows; at += 16) {
      Floats slope = zeros(), curvature = zeros();
      for (int c = 0; c < kMomentColumns; ++c) {
        Floats sum = zeros();
        for (int k = j; k < j + format_.group; ++k) {
          sum = fma(pattern(k, at), broadcast(gram(k, panel)[c]), sum);
        }
        const int column = first + c;
        if (column >= j && column < j + format_.group) {
          const Floats value = pattern(column, at);
          sum = fma(value, broadcast(b_.damping[column]), sum);
          slope = fma(value, load(b_.gradients + column * kRows + at), slope);
          curvature = fma(value, sum, curvature);
        }
        store(products[c] + at, sum);
      }
      const Floats old = load(integers + at);
      const Floats wish = old + slope * inverse(curvature);
      const Floats found = rtn::clamp(rtn::round_even(wish), static_cast<float>(range.lowest),
                                      static_cast<float>(range.highest));
      const Floats step = select_less(broadcast(kLeast), curvature, found, old) - old;
      store(integers + at, old + step);
      for (int c = 0; c < kMomentColumns; ++c) {
        float* to = b_.gradients + (first + c) * kRows + at;
        store(to, fnma(step, load(products[c] + at), load(to)));
      }
      for (int k = j; k < j + format_.group; ++k) {
        float* to = moved_[k - first] + at;
        store(to, fma(step, pattern(k, at), load(to)));
      }
    }
  }

  // d and dmin, for what they multiply now.
  void improve_halves() {
    alignas(64) Column products[kMomentColumns];
    alignas(64) Column patterns[2][kMaxBlock];
    alignas(64) Column sums[5] = {};  // u·H·u, u·H·m, m·H·m, u·g, m·g
    const int kinds = format_.has_mins ? 2 : 1;
    for (int j = 0; j < b_.columns; ++j) {
      for (int at = 0; at < kRows; at += 16) {
        const Floats sub = load(sub_scale_[group(j)] + at);
        store(patterns[0][j] + at, sub * load(points_[j] + at));
        if (kinds == 2) store(patterns[1][j] + at, load(sub_min_[group(j)] + at));
      }
    }
    for (int kind = 0; kind < kinds; ++kind) {
      for (int first = 0; first < b_.columns; first += kMomentColumns) {
        std::memset(products, 0, sizeof products);
        add_products(patterns[kind][0], gram(0, first / kMomentColumns), b_.columns, products[0]);
        for (int c = 0; c < kMomentColumns; ++c) {
          const int j = first + c;
          for (int at = 0; at < kRows; at += 16) {
            const Floats own = load(patterns[kind][j] + at);
            const Floats product = fma(own, broadcast(b_.damping[j]), load(products[c] + at));
            const auto add = [&](int sum, Floats a, Floats b) {
              store(sums[sum] + at, fma(a, b, load(sums[sum] + at)));
            };
            if (kind == 0) {
              add(0, own, product);
            } else {
              add(1, load(patterns[0][j] + at), product);
              add(2, own, product);
            }
            add(3 + kind, own, load(b_.gradients + j * kRows + at));
          }
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      improve_halves_of(row, sums[0][row], sums[1][row], sums[2][row], sums[3][row], sums[4][row]);
    }
  }

  void improve_halves_of(int row, double uu, double um, double mm, double ug, double mg) {
    Block& block = blocks_[row];
    const double d = d_[row], dmin = dmin_[row], determinant = uu * mm - um * um;
    double to_d = d, to_dmin = dmin;
    if (mm > 0 && determinant > 1e-6 * uu * mm) {
      to_d += (ug * mm - um * mg) / determinant;
      to_dmin += (um * ug - uu * mg) / determinant;
    } else if (uu > 0) {
      to_d += ug / uu;
    } else if (mm > 0) {
      to_dmin -= mg / mm;
    }
    const uint16_t half_d = nearest_half(to_d, block.d);
    const uint16_t half_dmin = nearest_half(to_dmin, block.dmin);
    const double by = double{half_to_float(half_d)} - d;
    const double by_min = format_.has_mins ? double{half_to_float(half_dmin)} - dmin : 0.0;
    const double change =
        by * by * uu - 2 * by * by_min * um + by_min * by_min * mm - 2 * (by * ug - by_min * mg);
    if (!(change < 0)) return;
    block.d = half_d;
    d_[row] = half_to_float(half_d);
    if (!format_.has_mins) return;
    block.dmin = half_dmin;
    dmin_[row] = half_to_float(half_dmin);
  }

  void store_block() {
    for (int j = 0; j < b_.columns; ++j) {
      for (int at = 0; at < kRows; at += 16) {
        const Floats point = grid_.snap(load(points_[j] + at));  // a foreign q8_0 may hold −128
        const Floats value = scale(group(j), at) * point - minimum(group(j), at);
        store(b_.errors + j * kRows + at, load(b_.weights + j * kRows + at) - value);
        store(points_[j] + at, grid_.code(point, offset_));
      }
      for (int row = 0; row < kRows; ++row) {
        blocks_[row].codes[j] = static_cast<uint8_t>(points_[j][row]);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      Block& block = blocks_[row];
      for (int g = 0; g < b_.columns / format_.group; ++g) {
        if (scales_.vary()) block.sub_scale[g] = static_cast<int16_t>(sub_scale_[g][row]);
        if (minimums_.vary()) block.sub_min[g] = static_cast<int16_t>(sub_min_[g][row]);
      }
      format_.pack(block, b_.packed + row * format_.block_bytes);
    }
  }
};

}  // namespace trit::TRIT_ISA::gptq

namespace trit::TRIT_ISA {

// See Kernels::descend.
void descend(const DescentBlock& block) {
  gptq::with_grid(*block.format, [&]<class Grid>(const Grid& grid, int offset,
                                                 gptq::Integers scales, gptq::Integers minimums) {
    gptq::Descender<Grid>(block, grid, static_cast<float>(offset), scales, minimums).run();
  });
}

}  // namespace trit::TRIT_ISA
