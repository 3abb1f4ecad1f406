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
#include "ops/softmax.h"
#include "ops/tiles.h"

namespace trit::TRIT_ISA {

constexpr int kWiden = 16;  // queries that make converting a page to floats worth it

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

struct Range {
  int first;
  int end;
};

// The queries of the rows that see the page from `start` on, from the first of a tile.
inline Range queries_of(const AttentionShape& shape, const AttentionRows& rows, int64_t start) {
  const int64_t above = start - rows.position;
  const int64_t below = shape.window > 0 ? above + kPage - 1 + shape.window : rows.count;
  const int64_t first_row = above > 0 ? above : 0;
  const int64_t end_row = below < rows.count ? below : rows.count;
  return {static_cast<int>(first_row * shape.heads_per_kv) / kTile * kTile,
          static_cast<int>(end_row * shape.heads_per_kv)};
}

// One page into the sums of its span.
template <CacheType type>
inline void attend_page(const AttentionShape& shape, const AttentionRows& rows, int64_t page,
                        bool more, const AttentionScratch& s) {
  const int count = rows.count * shape.heads_per_kv;
  const int64_t start = page * kPage;
  const auto [first, end] = queries_of(shape, rows, start);
  const bool widened = type != CacheType::kF32 && end - first >= kWiden;
  // What a page to be widened will read is fetched a part with each tile before that.
  const int64_t share = cell_bytes(type, shape.padded_dim) / ((end - first) / kTile + 1) + 64;
  const auto tiles = [&](const uint8_t* ahead, auto run) {
    for (int q = first; q < end; q += kTile) {
      if (ahead) fetch(ahead, (q - first) / kTile * share, share);
      const int width = count - q < kTile ? count - q : kTile;
      const int64_t last = rows.position + (q + width - 1) / shape.heads_per_kv;
      const int begin_slot = first_slot(shape, rows.position + q / shape.heads_per_kv, start);
      run(q, width, begin_slot, end_slot(last, start));
    }
  };
  const auto score_all = [&](auto cells, const uint8_t* keys, const uint8_t* ahead,
                             const uint8_t* next) {
    tiles(ahead, [&](int q, int width, int begin_slot, int slots) {
      score_tile<cells()>(width, s.queries + int64_t{q} * shape.head_dim, shape.head_dim,
                          shape.padded_dim, keys, begin_slot, slots, s.scores + q * kPage, next);
      next = nullptr;
    });
  };
  const auto gather_all = [&](auto cells, const uint8_t* values, const uint8_t* ahead,
                              const uint8_t* next) {
    tiles(ahead, [&](int q, int width, int begin_slot, int slots) {
      gather_tile<cells()>(width, s.scores + q * kPage, s.shrink + q, begin_slot, slots, values,
                           shape.padded_dim, s.span.values + int64_t{q} * shape.padded_dim, next);
      next = nullptr;
    });
  };
  constexpr std::integral_constant<CacheType, CacheType::kF32> wide{};
  constexpr std::integral_constant<CacheType, type> narrow{};
  const uint8_t* floats = reinterpret_cast<const uint8_t*>(s.widened);
  const uint8_t* keys = rows.pages[page] + rows.keys;
  const uint8_t* values = rows.pages[page] + rows.values;
  const uint8_t* next_keys = more ? rows.pages[page + 1] + rows.keys : nullptr;
  const uint8_t* next_values = more ? rows.pages[page + 1] + rows.values : nullptr;
  if (widened) {
    widen_keys<type>(keys, shape.padded_dim, s.widened);
    score_all(wide, floats, values, nullptr);
  } else {
    score_all(narrow, keys, nullptr, next_keys);
  }
  constexpr int kGroup = 16 / kTile * kTile;  // whole tiles, whose weights cover what they gather
  const int tiles_end = (end + kTile - 1) / kTile * kTile;
  const int last = tiles_end < count ? tiles_end : count;
  for (int q = first; q < last; q += kGroup) {
    soften(shape, rows, start, q, last - q < kGroup ? last - q : kGroup, s);
  }
  if (widened) {
    widen_values<type>(values, shape.padded_dim, s.widened);
    gather_all(wide, floats, next_keys, nullptr);
  } else {
    gather_all(narrow, values, nullptr, next_values);
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
