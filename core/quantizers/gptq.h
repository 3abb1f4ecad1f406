// Rounding with error feedback: what a column's rounding does to the output, later columns undo.
//
// H, the damped Gram matrix of the inputs, is U·D·Uᵀ with U unit upper triangular. The loss
// (w − v)·H·(w − v)ᵀ of values v for the weights w is then Σ D_j · η_j² with η = (w − v)·U, and
//   η_j = w_j − v_j + Σ_{k<j} (w_k − v_k) · U_kj:
// whatever the columns before j lost is added to its weight before it is rounded. D_j is the
// variance of input j that the inputs after it do not explain.
//
// A block's scales are chosen before its first column, for the weights that would undo all that is
// lost so far, then refitted to the codes that feedback chose, and its columns rounded again; each
// row keeps its best turn.
#pragma once

#include "kernels.h"
#include "ops/moments.h"
#include "quantizers/gptq_grid.h"

namespace trit::TRIT_ISA {

bool quantize_rows(const Format& format, const float* weights, int64_t rows, int64_t columns,
                   const float* importance, uint8_t* out);

namespace gptq {

using rtn::inverse;
using rtn::kMaxBlock;
using rtn::kMaxBlockGroups;
using rtn::zeros;

constexpr int kRefits = 2;  // of the block's scales

// Walks the columns of a block. At each, `choose(j, half, carried)` is told what the columns before
// it carry to it, for sixteen rows, and returns what it carries on; `errors` keeps that.
template <class Choose>
inline void sweep(const FeedbackBlock& f, const float* carried, Column* errors, Choose choose) {
  for (int first = 0; first < f.columns; first += kMomentColumns) {
    alignas(64) Column sums[kMomentColumns] = {};
    if (carried != nullptr) std::memcpy(sums, carried + first * kRows, sizeof sums);
    const float* panel = f.factor + first / kMomentColumns * f.stride;
    if (first > 0) add_products(errors[0], panel, first, sums[0]);
    for (int c = 0; c < kMomentColumns; ++c) {
      const int j = first + c;
      const Floats low = choose(j, 0, load(sums[c]));
      const Floats high = choose(j, 1, load(sums[c] + 16));
      store(errors[j], low);
      store(errors[j] + 16, high);
      const float* row = panel + j * kMomentColumns;
      for (int next = c + 1; next < kMomentColumns; ++next) {
        const Floats u = broadcast(row[next]);
        store(sums[next], fma(low, u, load(sums[next])));
        store(sums[next] + 16, fma(high, u, load(sums[next] + 16)));
      }
    }
  }
}

// The grid of each row's block: value = scale · point − minimum, by group.
struct Scales {
  alignas(64) Column scale[kMaxBlockGroups];
  alignas(64) Column minimum[kMaxBlockGroups];
};

// What one turn makes of the block.
struct Outcome {
  alignas(64) Column points[kMaxBlock];  // grid points, in the order of rounding
  alignas(64) Column errors[kMaxBlock];
  alignas(64) Column etas[kMaxBlock];
  alignas(64) float losses[kRows];
  uint16_t d[kRows];
  uint16_t dmin[kRows];
};

template <class Grid>
class Feeder {
 public:
  Feeder(const FeedbackBlock& block, const Grid& grid, float code_offset)
      : f(block), format(*block.format), grid(grid), code_offset(code_offset) {}

  void run() {
    for (int row = 0; row < kRows; ++row) {
      format.unpack(f.packed + row * format.block_bytes, blocks[row]);
      now.d[row] = blocks[row].d;
      now.dmin[row] = blocks[row].dmin;
    }
    round();
    best = now;
    for (int turn = 0; turn < kRefits; ++turn) {
      refit();
      round();
      keep_better();
    }
    write();
  }

 private:
  const FeedbackBlock& f;
  const Format& format;
  const Grid& grid;
  float code_offset;
  Block blocks[kRows];
  Scales scales;
  Outcome now, best;

  int group(int j) const { return f.places[j] / format.group; }

  void set_scales() {
    for (int g = 0; g < format.block_weights / format.group; ++g) {
      for (int row = 0; row < kRows; ++row) {
        const Block& b = blocks[row];
        scales.scale[g][row] = half_to_float(now.d[row]) * static_cast<float>(b.sub_scale[g]);
        scales.minimum[g][row] =
            format.has_mins ? half_to_float(now.dmin[row]) * static_cast<float>(b.sub_min[g])
                            : 0.0f;
      }
    }
  }

  void round() {
    set_scales();
    Floats losses[2] = {zeros(), zeros()};
    sweep(f, f.carried, now.errors, [&](int j, int half, Floats carried) {
      const int at = 16 * half;
      const Floats scale = load(scales.scale[group(j)] + at);
      const Floats minimum = load(scales.minimum[group(j)] + at);
      const Floats weight = load(f.weights + j * kRows + at);
      const Floats wish = weight + carried;
      const Floats point = grid.snap((wish + minimum) * inverse(scale));
      const Floats value = scale * point - minimum;
      const Floats eta = wish - value;
      losses[half] = fma(broadcast(f.variances[j]) * eta, eta, losses[half]);
      store(now.points[j] + at, point);
      store(now.etas[j] + at, eta);
      return weight - value;
    });
    store(now.losses, losses[0]);
    store(now.losses + 16, losses[1]);
  }

  // d and dmin that are best for the codes there are: η is linear in both.
  void refit() {
    alignas(64) Column slopes[kMaxBlock], levels[kMaxBlock], scratch[kMaxBlock];
    sweep(f, nullptr, scratch, [&](int j, int half, Floats carried) {
      const Floats integer = integers(&Block::sub_scale, j, half);
      const Floats own = integer * load(now.points[j] + 16 * half);
      store(slopes[j] + 16 * half, carried + own);
      return own;
    });
    if (format.has_mins) {
      sweep(f, nullptr, scratch, [&](int j, int half, Floats carried) {
        const Floats own = integers(&Block::sub_min, j, half);
        store(levels[j] + 16 * half, carried + own);
        return own;
      });
    } else {
      std::memset(levels, 0, sizeof levels);
    }
    for (int row = 0; row < kRows; ++row) refit_row(row, slopes, levels);
  }

  Floats integers(int16_t (Block::*which)[16], int j, int half) const {
    alignas(64) float values[16];
    for (int i = 0; i < 16; ++i) {
      values[i] = static_cast<float>((blocks[16 * half + i].*which)[group(j)]);
    }
    return load(values);
  }

  void refit_row(int row, const Column* slopes, const Column* levels) {
    double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
    const double d = half_to_float(now.d[row]), dmin = half_to_float(now.dmin[row]);
    for (int j = 0; j < f.columns; ++j) {
      const double w = f.variances[j], u = slopes[j][row], v = levels[j][row];
      const double x = now.etas[j][row] + d * u - dmin * v;
      uu += w * u * u;
      uv += w * u * v;
      vv += w * v * v;
      xu += w * x * u;
      xv += w * x * v;
    }
    const double determinant = uu * vv - uv * uv;
    if (vv > 0 && determinant > 1e-6 * uu * vv) {
      now.d[row] = nearest_half((xu * vv - uv * xv) / determinant, now.d[row]);
      now.dmin[row] = nearest_half((uv * xu - uu * xv) / determinant, now.dmin[row]);
    } else if (uu > 0) {
      now.d[row] = nearest_half((xu + dmin * uv) / uu, now.d[row]);
    }
  }

  void keep_better() {
    for (int half = 0; half < 2; ++half) {
      const int at = 16 * half;
      const Floats a = load(now.losses + at), b = load(best.losses + at);
      for (int j = 0; j < f.columns; ++j) {
        const auto keep = [&](const Column* from, Column* to) {
          store(to[j] + at, select_less(a, b, load(from[j] + at), load(to[j] + at)));
        };
        keep(now.points, best.points);
        keep(now.errors, best.errors);
      }
      for (int row = at; row < at + 16; ++row) {
        if (now.losses[row] < best.losses[row]) {
          best.losses[row] = now.losses[row];
          best.d[row] = now.d[row];
          best.dmin[row] = now.dmin[row];
        }
      }
    }
  }

  void write() {
    for (int j = 0; j < f.columns; ++j) {
      for (int half = 0; half < 2; ++half) {
        float* points = best.points[j] + 16 * half;
        store(points, grid.code(load(points), code_offset));
      }
      for (int row = 0; row < kRows; ++row) {
        blocks[row].codes[f.places[j]] = static_cast<uint8_t>(best.points[j][row]);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      blocks[row].d = best.d[row];
      blocks[row].dmin = best.dmin[row];
      format.pack(blocks[row], f.packed + row * format.block_bytes);
      f.losses[row] += best.losses[row];
    }
    std::memcpy(f.errors, best.errors, sizeof(Column) * static_cast<size_t>(f.columns));
  }
};

template <class Grid>
inline void feed(const FeedbackBlock& f, const Grid& grid, float code_offset) {
  Feeder<Grid>(f, grid, code_offset).run();
}

// The scales of a block are searched for the weights with which it would undo all that is lost.
inline bool encode(const FeedbackBlock& f) {
  alignas(64) Column wishes[kMaxBlock], scratch[kMaxBlock];
  alignas(64) float rows[kRows * kMaxBlock];
  sweep(f, f.carried, scratch, [&](int j, int half, Floats carried) {
    store(wishes[j] + 16 * half, load(f.weights + j * kRows + 16 * half) + carried);
    return zeros() - carried;
  });
  for (int j = 0; j < f.columns; ++j) {
    for (int row = 0; row < kRows; ++row) rows[row * f.columns + f.places[j]] = wishes[j][row];
  }
  return quantize_rows(*f.format, rows, kRows, f.columns, f.importance, f.packed);
}

// A block that is rounded as a whole: its values are what `packed` says.
inline void take(const FeedbackBlock& f) {
  alignas(64) float rows[kRows * kMaxBlock];
  alignas(64) Column errors[kMaxBlock];
  for (int row = 0; row < kRows; ++row) {
    f.format->decode(f.packed + row * f.format->block_bytes, f.columns, rows + row * f.columns);
  }
  for (int j = 0; j < f.columns; ++j) {
    for (int row = 0; row < kRows; ++row) {
      errors[j][row] = f.weights[j * kRows + row] - rows[row * f.columns + f.places[j]];
    }
  }
  alignas(64) float losses[kRows] = {};
  sweep(f, f.carried, errors, [&](int j, int half, Floats carried) {
    const Floats error = load(errors[j] + 16 * half);
    const Floats eta = error + carried;
    float* loss = losses + 16 * half;
    store(loss, fma(broadcast(f.variances[j]) * eta, eta, load(loss)));
    return error;
  });
  for (int row = 0; row < kRows; ++row) f.losses[row] += losses[row];
  std::memcpy(f.errors, errors, sizeof(Column) * static_cast<size_t>(f.columns));
}

}  // namespace gptq

// See Kernels::feed_back.
bool feed_back(const FeedbackBlock& f) {
  if (!f.given && !gptq::encode(f)) return false;
  const auto feed = [&](const auto& grid, int offset, gptq::Integers, gptq::Integers) {
    gptq::feed(f, grid, static_cast<float>(offset));
  };
  // Of formats with codebooks whole blocks are rounded: feedback goes from block to block.
  if (f.given || !gptq::with_grid(*f.format, feed)) gptq::take(f);
  return true;
}

}  // namespace trit::TRIT_ISA
