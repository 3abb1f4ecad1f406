// Attention over the cache.
//
// Rows of one sequence share each page they see: its keys and values are converted to floats once
// and multiplied by tiles of queries, in registers. Few queries (a step of decoding) read the cells
// as they are.
//
// A query's bits depend only on what it sees. Its positions come in their order; each span of
// kSpanPages pages has its own running maximum and sums (Milakov and Gimelshein, arXiv 1805.02867),
// and spans are added up in their order. A page that a query does not see changes nothing of its
// sums: all its weights are 0 and its maximum stays, so e^0 = 1 is what they shrink by. Scores are
// kept in units of log 2, which the scale of the queries carries.
#pragma once

#include "isa/isa.h"
#include "kernels.h"
#include "ops/cells.h"
#include "ops/elementwise.h"
#include "ops/tiles.h"

namespace trit::TRIT_ISA {

constexpr float kLog2E = 1.44269504f;
constexpr int kWiden = 16;  // queries that make converting a page to floats worth it

// Sums over some positions, for each of some queries.
struct Sums {
  float* largest;  // score
  float* total;    // of the weights 2^(score − largest)
  float* values;   // Σ weight · value, [queries][padded_dim]
};

inline Sums sums_at(float* memory, int queries) {
  const int rounded = (queries + 15) / 16 * 16;
  return {memory, memory + rounded, memory + 2 * rounded};
}

inline void clear(const Sums& sums, int queries, int padded_dim) {
  for (int q = 0; q < queries; q += 16) {
    store(sums.largest + q, broadcast(-__builtin_inff()));
    store(sums.total + q, broadcast(0.0f));
  }
  for (int64_t i = 0; i < int64_t{queries} * padded_dim; i += 16) {
    store(sums.values + i, broadcast(0.0f));
  }
}

// 2^x for x ≤ 0; 0 below −127, −inf included. Polynomial of degree 5 fitted to the least relative
// error on ±1/2, 1e-7.
inline Floats power(Floats x) {
  const Floats bounded = max(x, broadcast(-127.0f));
  const Ints n = round_to_ints(bounded);
  const Floats r = bounded - to_floats(n);
  Floats p = broadcast(0.001326472731307149f);
  p = fma(p, r, broadcast(0.009671512991189957f));
  p = fma(p, r, broadcast(0.05550733581185341f));
  p = fma(p, r, broadcast(0.24022242426872253f));
  p = fma(p, r, broadcast(0.6931470036506653f));
  p = fma(p, r, broadcast(1.0f));
  return p * power_of_two(n);  // n = −127 makes it 0
}

// What weights are relative to: the largest score, or anything finite where there is none yet.
inline Floats finite(Floats largest) {
  return select_less(largest, broadcast(-3e38f), broadcast(0.0f), largest);
}

// Views of one worker's scratch.
struct AttentionScratch {
  float* queries;  // scaled, in tiles: [tile][head_dim][queries of the tile]
  float* scores;   // [queries][kPage], then weights
  float* shrink;   // by how much the page made the sums before it smaller
  float* widened;  // a page's keys or values
  Sums span;
  Sums all;
};

inline AttentionScratch carve(float* memory, int queries, int padded_dim) {
  const int64_t misaligned = (reinterpret_cast<uintptr_t>(memory) / sizeof(float)) % 16;
  float* at = memory + (16 - misaligned) % 16;
  const auto take = [&](int64_t floats) {
    float* taken = at;
    at += (floats + 15) / 16 * 16;
    return taken;
  };
  const int rounded = (queries + 15) / 16 * 16;
  AttentionScratch s{};
  s.queries = take(int64_t{queries} * padded_dim);
  s.scores = take(int64_t{rounded} * kPage);
  s.shrink = take(rounded);
  s.widened = take(int64_t{kPage} * padded_dim);
  s.span = sums_at(take(partial_floats(queries, padded_dim)), queries);
  s.all = sums_at(take(partial_floats(queries, padded_dim)), queries);
  return s;
}

// Which slots of the page from `start` on the row at `position` sees: [begin, end).
inline int first_slot(const AttentionShape& shape, int64_t position, int64_t start) {
  if (shape.window == 0 || position - shape.window < start) return 0;
  const int64_t slot = position - shape.window + 1 - start;
  return slot < kPage ? static_cast<int>(slot) : kPage;
}
inline int end_slot(int64_t position, int64_t start) {
  const int64_t slots = position - start + 1;
  return slots < 0 ? 0 : slots < kPage ? static_cast<int>(slots) : kPage;
}

inline int64_t first_seen(const AttentionShape& shape, int64_t position) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

inline void scale_queries(const AttentionShape& shape, const AttentionRows& rows, float* out) {
  const float scale = shape.soft_cap > 0.0f ? shape.scale / shape.soft_cap : shape.scale * kLog2E;
  const int count = rows.count * shape.heads_per_kv;
  for (int q = 0; q < count; ++q) {
    const int tile = q / kTile * kTile;
    const int width = count - tile < kTile ? count - tile : kTile;
    const float* from = rows.queries + q / shape.heads_per_kv * rows.stride +
                        int64_t{q % shape.heads_per_kv} * shape.head_dim;
    float* to = out + int64_t{tile} * shape.head_dim + q - tile;
    for (int d = 0; d < shape.head_dim; ++d) to[d * width] = from[d] * scale;
  }
}

// Caps and masks the scores of up to sixteen queries, those from `first` on, turns them into
// weights and brings maxima and totals up to date.
inline void soften(const AttentionShape& shape, const AttentionRows& rows, int64_t start, int first,
                   int count, const AttentionScratch& s) {
  const int per_kv = shape.heads_per_kv;
  const int64_t top = rows.position + first / per_kv;
  const int64_t bottom = rows.position + (first + count - 1) / per_kv;
  const int begin = first_slot(shape, top, start) / 16 * 16;
  const int end = end_slot(bottom, start);
  const bool masked = first_slot(shape, bottom, start) > 0 || end_slot(top, start) < kPage;
  const Floats nothing = broadcast(-__builtin_inff());
  Floats in_page = nothing;
  for (int i = 0; i < count; ++i) {
    float* scores = s.scores + (first + i) * kPage;
    const int64_t position = masked ? rows.position + (first + i) / per_kv : 0;
    Floats largest = nothing;
    for (int lane = begin; lane < end; lane += 16) {
      Floats score = load(scores + lane);
      if (shape.soft_cap > 0.0f) score = broadcast(shape.soft_cap * kLog2E) * tanh(score);
      if (masked) {
        score = select_first(end_slot(position, start) - lane, score, nothing);
        score = select_first(first_slot(shape, position, start) - lane, nothing, score);
      }
      if (masked || shape.soft_cap > 0.0f) store(scores + lane, score);
      largest = max(largest, score);
    }
    in_page = select_first(i, in_page, largest_lane(largest));
  }
  const Floats before = load(s.span.largest + first);
  const Floats now = max(before, in_page);
  alignas(64) float references[16];
  store(references, finite(now));
  const Floats shrink = power(before - finite(now));
  Floats weights = broadcast(0.0f);
  for (int i = 0; i < count; ++i) {
    float* scores = s.scores + (first + i) * kPage;
    const Floats reference = broadcast(references[i]);
    Floats sum = broadcast(0.0f);
    for (int lane = begin; lane < end; lane += 16) {
      const Floats weight = power(load(scores + lane) - reference);
      store(scores + lane, weight);
      sum = sum + weight;
    }
    weights = select_first(i, weights, sum_lanes(sum));
  }
  store_first(s.span.total + first, fma(load(s.span.total + first), shrink, weights), count);
  store_first(s.span.largest + first, now, count);
  store_first(s.shrink + first, shrink, count);
}

// One page into the sums of its span.
template <CacheType type>
inline void attend_page(const AttentionShape& shape, const AttentionRows& rows, int64_t page,
                        bool more, const AttentionScratch& s) {
  const int count = rows.count * shape.heads_per_kv;
  const int64_t start = page * kPage;
  // Rows that see the page, then whole tiles of their queries.
  const int64_t above = start - rows.position;
  const int64_t below = shape.window > 0 ? above + kPage - 1 + shape.window : rows.count;
  const int64_t first_row = above > 0 ? above : 0;
  const int64_t end_row = below < rows.count ? below : rows.count;
  const int first = static_cast<int>(first_row * shape.heads_per_kv) / kTile * kTile;
  const int end = static_cast<int>(end_row * shape.heads_per_kv);
  const bool widened = type != CacheType::kF32 && end - first >= kWiden;
  const auto tiles = [&](auto run) {
    for (int q = first; q < end; q += kTile) {
      const int width = count - q < kTile ? count - q : kTile;
      const int64_t last = rows.position + (q + width - 1) / shape.heads_per_kv;
      const int begin_slot = first_slot(shape, rows.position + q / shape.heads_per_kv, start);
      run(q, width, begin_slot, end_slot(last, start));
    }
  };
  const auto score_all = [&](auto cells, const uint8_t* keys, const uint8_t* next) {
    tiles([&](int q, int width, int begin_slot, int slots) {
      score_tile<cells()>(width, s.queries + int64_t{q} * shape.head_dim, shape.head_dim,
                          shape.padded_dim, keys, begin_slot, slots, s.scores + q * kPage, next);
      next = nullptr;
    });
  };
  const auto gather_all = [&](auto cells, const uint8_t* values, const uint8_t* next) {
    tiles([&](int q, int width, int begin_slot, int slots) {
      gather_tile<cells()>(width, s.scores + q * kPage, s.shrink + q, begin_slot, slots, values,
                           shape.padded_dim, s.span.values + int64_t{q} * shape.padded_dim, next);
      next = nullptr;
    });
  };
  constexpr std::integral_constant<CacheType, CacheType::kF32> wide{};
  constexpr std::integral_constant<CacheType, type> narrow{};
  const uint8_t* floats = reinterpret_cast<const uint8_t*>(s.widened);
  if (widened) {
    widen_keys<type>(rows.pages[page] + rows.keys, shape.padded_dim, s.widened);
    score_all(wide, floats, nullptr);
  } else {
    score_all(narrow, rows.pages[page] + rows.keys,
              more ? rows.pages[page + 1] + rows.keys : nullptr);
  }
  constexpr int kGroup = 16 / kTile * kTile;  // whole tiles, whose weights cover what they gather
  const int tiles_end = (end + kTile - 1) / kTile * kTile;
  const int last = tiles_end < count ? tiles_end : count;
  for (int q = first; q < last; q += kGroup) {
    soften(shape, rows, start, q, last - q < kGroup ? last - q : kGroup, s);
  }
  if (widened) {
    widen_values<type>(rows.pages[page] + rows.values, shape.padded_dim, s.widened);
    gather_all(wide, floats, nullptr);
  } else {
    gather_all(narrow, rows.pages[page] + rows.values,
               more ? rows.pages[page + 1] + rows.values : nullptr);
  }
}

// The sums over one span into s.span; the queries are in place.
inline void sum_span(const AttentionShape& shape, const AttentionRows& rows, int64_t span,
                     const AttentionScratch& s) {
  clear(s.span, rows.count * shape.heads_per_kv, shape.padded_dim);
  const int64_t first = first_seen(shape, rows.position) / kPage;
  const int64_t last = (rows.position + rows.count - 1) / kPage;
  for (int64_t i = 0; i < kSpanPages; ++i) {
    const int64_t page = span * kSpanPages + i;
    if (page < first || page > last) continue;
    const bool more = page < last;
    if (shape.type == CacheType::kF16) {
      attend_page<CacheType::kF16>(shape, rows, page, more, s);
    } else if (shape.type == CacheType::kQ8_0) {
      attend_page<CacheType::kQ8_0>(shape, rows, page, more, s);
    } else {
      attend_page<CacheType::kF32>(shape, rows, page, more, s);
    }
  }
}

// all += span. Sums over nothing change nothing.
inline void add_span(const Sums& span, int queries, int padded_dim, const Sums& all) {
  for (int first = 0; first < queries; first += 16) {
    const Floats a = load(all.largest + first);
    const Floats b = load(span.largest + first);
    const Floats largest = max(a, b);
    const Floats keep = power(a - finite(largest));
    const Floats join = power(b - finite(largest));
    store(all.largest + first, largest);
    store(all.total + first, fma(load(all.total + first), keep, load(span.total + first) * join));
    alignas(64) float factors[2][16];
    store(factors[0], keep);
    store(factors[1], join);
    for (int i = 0; i < 16 && first + i < queries; ++i) {
      const int64_t at = int64_t{first + i} * padded_dim;
      for (int64_t d = at; d < at + padded_dim; d += 16) {
        const Floats joined = load(span.values + d) * broadcast(factors[1][i]);
        store(all.values + d, fma(load(all.values + d), broadcast(factors[0][i]), joined));
      }
    }
  }
}

// Σ weight · value / Σ weight. A sink takes its share of the weight and gives nothing.
inline void finish(const AttentionShape& shape, const AttentionRows& rows, const Sums& all) {
  const int per_kv = shape.heads_per_kv;
  const int count = rows.count * per_kv;
  for (int first = 0; first < count; first += 16) {
    alignas(64) float factors[16] = {};
    Floats total = load(all.total + first);
    Floats keep = broadcast(1.0f);
    if (rows.sinks) {
      for (int i = 0; i < 16; ++i) factors[i] = rows.sinks[(first + i) % per_kv] * kLog2E;
      const Floats sinks = load(factors);
      const Floats own = load(all.largest + first);
      const Floats largest = max(own, sinks);
      keep = power(own - largest);
      total = fma(total, keep, power(sinks - largest));
    }
    store(factors, keep / total);
    for (int q = first; q < first + 16 && q < count; ++q) {
      const Floats factor = broadcast(factors[q - first]);
      const float* values = all.values + int64_t{q} * shape.padded_dim;
      float* out = rows.out + q / per_kv * rows.stride + int64_t{q % per_kv} * shape.head_dim;
      for_each(shape.head_dim, out, [&](int64_t i, int) { return load(values + i) * factor; });
    }
  }
}

inline void attend(const AttentionShape& shape, const AttentionRows& rows, float* scratch) {
  const int count = rows.count * shape.heads_per_kv;
  const AttentionScratch s = carve(scratch, count, shape.padded_dim);
  scale_queries(shape, rows, s.queries);
  clear(s.all, count, shape.padded_dim);
  const int64_t last = (rows.position + rows.count - 1) / kPage / kSpanPages;
  for (int64_t i = first_seen(shape, rows.position) / kPage / kSpanPages; i <= last; ++i) {
    sum_span(shape, rows, i, s);
    add_span(s.span, count, shape.padded_dim, s.all);
  }
  finish(shape, rows, s.all);
}

inline void attend_span(const AttentionShape& shape, const AttentionRows& rows, int64_t span,
                        float* scratch, float* partial) {
  const int count = rows.count * shape.heads_per_kv;
  AttentionScratch s = carve(scratch, count, shape.padded_dim);
  s.span = sums_at(partial, count);
  scale_queries(shape, rows, s.queries);
  sum_span(shape, rows, span, s);
}

inline void attend_merge(const AttentionShape& shape, const AttentionRows& rows, int64_t spans,
                         const float* partials, float* scratch) {
  const int count = rows.count * shape.heads_per_kv;
  const AttentionScratch s = carve(scratch, count, shape.padded_dim);
  clear(s.all, count, shape.padded_dim);
  const int64_t step = partial_floats(count, shape.padded_dim);
  for (int64_t i = 0; i < spans; ++i) {
    const Sums span = sums_at(const_cast<float*>(partials) + i * step, count);
    add_span(span, count, shape.padded_dim, s.all);
  }
  finish(shape, rows, s.all);
}

}  // namespace trit::TRIT_ISA
