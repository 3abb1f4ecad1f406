// Blocks of 256 whose weights are entries of a codebook: the search that the iq1, iq2 and iq3
// formats share.
//
// value = d · (2 · scale + 1) · point. Each group first gets the scale it would like, sampled and
// refitted as in rtn_scale.h; d is about the one that the largest needs. Then, in turns: every
// group tries the odd integers around its wish and keeps the best, and d is refitted to all points
// of the block at once. What a point is, and which is nearest, the grids know.
#pragma once

#include "quantizers/rtn_flat.h"
#include "quantizers/rtn_minimums.h"
#include "quantizers/rtn_super.h"

namespace trit::TRIT_ISA::rtn {

constexpr int kOctet = 8;  // weights that share a sign pattern, or an entry

// A grid's state for sixteen blocks: where it finds the weights, and what was chosen last.
struct Chosen {
  alignas(64) Column points[kMaxBlock];  // value / scale
  Entries blocks[kLanes];
};

struct CodebookShape {
  int group;        // weights per scale
  float highest;    // integer: 15 or 31
  int scales;       // block scales to try, an odd number
  Samples samples;  // of the largest weight: what it is in units of the group's scale
};

constexpr float kScaleStep = 0.03f;  // between the block scales tried

// cost[j][digit] of weights x … with w, at points scale · (level + shift).
template <int count, int levels>
inline void tabulate_costs(const Column* x, const Column* w, Floats scale,
                           const float (&level)[levels], Floats shift, Floats (*cost)[levels]) {
  for (int digit = 0; digit < levels; ++digit) {
    const Floats value = scale * (broadcast(level[digit]) + shift);
    for (int j = 0; j < count; ++j) {
      const Floats off = load(x[j]) - value;
      cost[j][digit] = load(w[j]) * (off * off);
    }
  }
}

// Of the costs of an entry's weights.
template <class Book, typename Join>
inline void tabulate_halves(const Floats (*cost)[Book::kLevels], Join join,
                            HalfTables<Book>& tables) {
  tabulate<Book>(join_digits<Book>(cost, join), tables.first, join);
  tabulate<Book>(join_digits<Book>(cost + Book::kDims, join), tables.second, join);
}

// The error of the nearest entry, and nothing else.
template <class Book>
inline Floats least_of(const Minimums<Book>& minimums, const Floats (*cost)[Book::kLevels],
                       Column* first) {
  tabulate<Book>(join_digits<Book>(cost, kSum), first, kSum);
  return least_error<Book>(minimums, first, join_digits<Book>(cost + Book::kDims, kSum));
}

// Puts one lane's nearest entry, of which the second half is known, at the weights from `first` on.
template <class Book>
inline void place_entry(const Book& book, const float (&level)[Book::kLevels], int first, int lane,
                        const HalfTables<Book>& tables, int second, Chosen& chosen) {
  constexpr int kDims = Book::kDims, kLevels = Book::kLevels;
  const int entry = find_entry(book, tables.first, second, lane);
  chosen.blocks[lane].entry[first / (2 * kDims)] = static_cast<uint16_t>(entry);
  int low = book.first[entry];
  for (int j = first; j < first + kDims; ++j, low /= kLevels, second /= kLevels) {
    chosen.points[j][lane] = level[low % kLevels];
    chosen.points[j + kDims][lane] = level[second % kLevels];
  }
}

// The nearest entry of every lane.
template <class Book>
inline void place_nearest(const Book& book, const Minimums<Book>& minimums,
                          const float (&level)[Book::kLevels], int first, HalfTables<Book>& tables,
                          Chosen& chosen) {
  alignas(64) float second[kLanes];
  store(second, nearest(minimums, tables.first, tables.second).second);
  for (int lane = 0; lane < kLanes; ++lane) {
    place_entry(book, level, first, lane, tables, static_cast<int>(second[lane]), chosen);
  }
}

inline Sums correlate_points(const Column* x, const Column* w, const Column* points, int n) {
  Sums sums = {zeros(), zeros()};
  for (int i = 0; i < n; ++i) {
    const Floats weighted = load(w[i]) * load(points[i]);
    sums.xq = sums.xq + weighted * load(x[i]);
    sums.qq = sums.qq + weighted * load(points[i]);
  }
  return sums;
}

// Picks the points of a group; the scale that fits them best.
template <class Grid>
inline Sums pick_group(Grid& grid, const BlockLanes& lanes, int group, int g, Floats scale,
                       const typename Grid::Choice& choice) {
  const int first = g * group;
  grid.pick(first, group, scale, choice);
  return correlate_points(lanes.x + first, lanes.w + first, grid.chosen.points + first, group);
}

template <class Grid>
inline Floats find_wish(Grid& grid, const CodebookShape& shape, int count, const BlockLanes& lanes,
                        int g) {
  const int first = g * shape.group;
  const Floats most = largest(lanes.x + first, shape.group);
  Floats best = broadcast(kHuge), scale = zeros();
  typename Grid::Choice choice = {};
  for (int i = -1; i < count; ++i) {
    const float sample = shape.samples.first + static_cast<float>(i) * shape.samples.step;
    const float multiple = i < 0 ? 1.0f : sample;  // one: as if all weights were of one size
    const Floats tried = most * broadcast(1.0f / multiple);
    const auto judged = grid.scan(first, shape.group, tried);
    scale = select_less(judged.error, best, tried, scale);
    Grid::keep_better(choice, best, judged);
  }
  const Sums sums = pick_group(grid, lanes, shape.group, g, scale, choice);
  return select_less(zeros(), sums.xq, sums.xq / sums.qq, scale);
}

template <class Grid>
struct Turn {
  Floats wishes[kMaxBlockGroups], integers[kMaxBlockGroups];
  typename Grid::Choice choices[kMaxBlockGroups];
};

inline Floats nearest_odd(const CodebookShape& shape, Floats wish, Floats step) {
  const Floats half = round_even((wish - broadcast(1.0f)) * broadcast(0.5f)) + step;
  const Floats at = clamp(half, 0.0f, (shape.highest - 1.0f) * 0.5f);
  return at + at + broadcast(1.0f);
}

// Of some block scales around `d` the one that suits the wishes best.
template <class Grid>
inline Floats try_scales(const Grid& grid, const CodebookShape& shape, const BlockLanes& lanes,
                         Floats d, const Floats* wishes) {
  Floats best = broadcast(kHuge), chosen = d;
  for (int i = 0; i < shape.scales; ++i) {
    const float factor = 1.0f + kScaleStep * static_cast<float>(i - shape.scales / 2);
    uint16_t bits[kLanes];
    const Floats tried = round_scale(lanes, d * broadcast(factor), bits);
    const Floats per_unit = inverse(tried);
    Floats error = zeros();
    for (int g = 0; g < kMaxBlock / shape.group; ++g) {
      const Floats odd = nearest_odd(shape, wishes[g] * per_unit, zeros());
      error = error + grid.error(g * shape.group, shape.group, tried * odd).error;
    }
    chosen = select_less(error, best, tried, chosen);
    best = min(error, best);
  }
  return chosen;
}

// The odd integers around a group's wish.
template <class Grid>
inline void choose_odd(Grid& grid, const CodebookShape& shape, Floats d, int g, Turn<Grid>& turn) {
  const Floats wish = turn.wishes[g] * inverse(d);
  Floats best = broadcast(kHuge);
  turn.integers[g] = broadcast(1.0f);
  for (int step = -1; step <= 1; ++step) {
    const Floats odd = nearest_odd(shape, wish, broadcast(static_cast<float>(step)));
    const auto judged = grid.error(g * shape.group, shape.group, d * odd);
    turn.integers[g] = select_less(judged.error, best, odd, turn.integers[g]);
    Grid::keep_better(turn.choices[g], best, judged);
  }
}

// Chooses every group's integer near its wish, which becomes what was chosen; returns the refitted
// d.
template <class Grid>
inline Floats improve(Grid& grid, const CodebookShape& shape, const BlockLanes& lanes, Floats d,
                      Turn<Grid>& turn) {
  Sums total = {zeros(), zeros()};
  for (int g = 0; g < kMaxBlock / shape.group; ++g) {
    choose_odd(grid, shape, d, g, turn);
    const Floats integer = turn.integers[g];
    turn.wishes[g] = d * integer;
    const Sums sums = pick_group(grid, lanes, shape.group, g, turn.wishes[g], turn.choices[g]);
    total.xq = total.xq + integer * sums.xq;
    total.qq = total.qq + integer * integer * sums.qq;
  }
  return select_less(zeros(), total.xq, total.xq / total.qq, d);
}

// No point is zero: a block that is smaller than the least d says is best left to a d of zero.
inline void clear_if_worse(const Sums& total, Floats d, uint16_t* bits) {
  alignas(64) float excess[kLanes];
  store(excess, d * total.qq - (total.xq + total.xq));
  for (int lane = 0; lane < kLanes; ++lane) {
    if (!(excess[lane] < 0.0f)) bits[lane] = 0;
  }
}

inline void store_scales(Chosen& chosen, int g, Floats odd) {
  alignas(64) float scales[kLanes];
  store(scales, (odd - broadcast(1.0f)) * broadcast(0.5f));
  for (int lane = 0; lane < kLanes; ++lane) {
    chosen.blocks[lane].scales[g] = static_cast<uint8_t>(scales[lane]);
  }
}

template <class Grid>
inline void solve_codebook(Grid& grid, const CodebookShape& shape, int count,
                           const BlockLanes& lanes) {
  const int groups = kMaxBlock / shape.group;
  Turn<Grid> turn;
  uint16_t bits[kLanes];
  for (int g = 0; g < groups; ++g) turn.wishes[g] = find_wish(grid, shape, count, lanes, g);
  Floats d = covering_scale(turn.wishes, groups, shape.highest);
  d = try_scales(grid, shape, lanes, d, turn.wishes);
  for (int i = 0; i < kTurns; ++i) {
    d = round_scale(lanes, improve(grid, shape, lanes, d, turn), bits);
  }
  Sums total = {zeros(), zeros()};
  for (int g = 0; g < groups; ++g) {
    const Floats integer = turn.integers[g];
    const Sums sums = pick_group(grid, lanes, shape.group, g, d * integer, turn.choices[g]);
    total.xq = total.xq + integer * sums.xq;
    total.qq = total.qq + integer * integer * sums.qq;
    store_scales(grid.chosen, g, integer);
  }
  clear_if_worse(total, d, bits);
  for (int lane = 0; lane < kLanes; ++lane) grid.chosen.blocks[lane].d = bits[lane];
}

template <class Grid>
inline void encode_codebook(const Rows& rows, const CodebookShape& shape) {
  const int count = shape.samples.count(rows.importance != nullptr);
  BlockLanes lanes;
  static const auto minimums = make_minimums(Grid::kBook);
  Grid grid(lanes, minimums);
  for (int64_t first = 0; first < rows.blocks; first += kLanes) {
    const int64_t left = rows.blocks - first;
    const int filled = left < kLanes ? static_cast<int>(left) : kLanes;
    gather(rows.weights, rows.importance, rows.columns, first, kMaxBlock, filled, lanes);
    grid.prepare();
    solve_codebook(grid, shape, count, lanes);
    for (int lane = 0; lane < filled; ++lane) {
      uint8_t* out = rows.out + (first + lane) * rows.format.block_bytes;
      rows.format.pack_entries(grid.chosen.blocks[lane], out);
    }
  }
}

}  // namespace trit::TRIT_ISA::rtn
