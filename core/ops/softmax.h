// The online softmax of attention: weights from scores, and sums that are brought together.
#pragma once

#include "isa/isa.h"
#include "kernels.h"
#include "ops/elementwise.h"
#include "ops/tiles.h"

namespace trit::TRIT_ISA {

constexpr float kLog2E = 1.44269504f;
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

}  // namespace trit::TRIT_ISA
