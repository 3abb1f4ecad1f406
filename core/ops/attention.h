// Rotary embedding, the cache's layout, and attention over it.
//
// A page holds 64 positions of one layer. For each key head the keys lie transposed (dimension by
// dimension, 64 positions each) so that a lane is a position, and the values position by position
// so that a lane is a dimension: no horizontal sums. The walk over the cache goes page by page from
// position 0, whatever the batch, so an output's bits depend only on the positions it sees.
#pragma once

#include "isa/isa.h"
#include "kernels.h"
#include "ops/elementwise.h"

namespace trit::TRIT_ISA {

inline void rope(const float* cos, const float* sin, int pairs, bool adjacent, float* head) {
  for (int i = 0; i < pairs; ++i) {
    float& a = adjacent ? head[2 * i] : head[i];
    float& b = adjacent ? head[2 * i + 1] : head[i + pairs];
    const float x = a;
    const float y = b;
    a = x * cos[i] - y * sin[i];
    b = x * sin[i] + y * cos[i];
  }
}

inline void store_key(const float* head, int head_dim, int slot, uint16_t* page) {
  for (int d = 0; d < head_dim; ++d) page[d * kPage + slot] = to_half(head[d]);
}

inline void store_value(const float* head, int head_dim, int padded_dim, int slot, uint16_t* page) {
  for (int d = 0; d < head_dim; ++d) page[slot * padded_dim + d] = to_half(head[d]);
}

constexpr int kMaxHeads = 4;  // query heads handled at once

// scores[head][position] = q · k for one page.
template <int Heads>
inline void score_page(const float* queries, int head_dim, const uint16_t* keys,
                       float (*scores)[kPage]) {
  for (int lane = 0; lane < kPage; lane += 32) {
    Floats first[Heads];
    Floats second[Heads];
    for (int h = 0; h < Heads; ++h) first[h] = second[h] = broadcast(0.0f);
    for (int d = 0; d < head_dim; ++d) {
      const Floats k0 = load_half(keys + d * kPage + lane);
      const Floats k1 = load_half(keys + d * kPage + lane + 16);
      for (int h = 0; h < Heads; ++h) {
        const Floats q = broadcast(queries[h * head_dim + d]);
        first[h] = fma(q, k0, first[h]);
        second[h] = fma(q, k1, second[h]);
      }
    }
    for (int h = 0; h < Heads; ++h) {
      store(scores[h] + lane, first[h]);
      store(scores[h] + lane + 16, second[h]);
    }
  }
}

// sums[head][d] = sums · shrink[head] + Σ scores[head][position] · v[position][d] for one page.
template <int Heads>
inline void gather_page(const float (*scores)[kPage], const float* shrink, int positions,
                        const uint16_t* values, int padded_dim, float* sums) {
  for (int d = 0; d < padded_dim; d += 32) {
    Floats first[Heads];
    Floats second[Heads];
    for (int h = 0; h < Heads; ++h) {
      const Floats factor = broadcast(shrink[h]);
      first[h] = load(sums + h * padded_dim + d) * factor;
      second[h] = load(sums + h * padded_dim + d + 16) * factor;
    }
    for (int p = 0; p < positions; ++p) {
      const Floats v0 = load_half(values + p * padded_dim + d);
      const Floats v1 = load_half(values + p * padded_dim + d + 16);
      for (int h = 0; h < Heads; ++h) {
        const Floats weight = broadcast(scores[h][p]);
        first[h] = fma(weight, v0, first[h]);
        second[h] = fma(weight, v1, second[h]);
      }
    }
    for (int h = 0; h < Heads; ++h) {
      store(sums + h * padded_dim + d, first[h]);
      store(sums + h * padded_dim + d + 16, second[h]);
    }
  }
}

// Scales, caps and masks one head's scores of a page, turns them into weights relative to the
// running maximum, and returns by how much what was summed before shrinks.
inline float soften_page(const AttentionShape& shape, int begin, int end, float* scores,
                         float& largest, float& total) {
  const Floats minus_infinity = broadcast(-__builtin_inff());
  Floats page_largest = minus_infinity;
  for (int lane = 0; lane < kPage; lane += 16) {
    Floats s = load(scores + lane) * broadcast(shape.scale);
    if (shape.soft_cap > 0.0f) {
      s = broadcast(shape.soft_cap) * tanh(s * broadcast(1.0f / shape.soft_cap));
    }
    s = select_first(end - lane, s, minus_infinity);
    s = select_first(begin - lane, minus_infinity, s);
    store(scores + lane, s);
    page_largest = max(page_largest, s);
  }
  const float before = largest;
  const float in_page = reduce_max(page_largest);
  largest = in_page > largest ? in_page : largest;
  Floats sum = broadcast(0.0f);
  for (int lane = 0; lane < kPage; lane += 16) {
    const Floats weight = exp(load(scores + lane) - broadcast(largest));
    store(scores + lane, weight);
    sum = sum + weight;
  }
  alignas(64) float shrink[16];
  store(shrink, exp(broadcast(before - largest)));
  total = total * shrink[0] + reduce_add(sum);
  return shrink[0];
}

template <int Heads>
inline void attend_heads(const AttentionShape& shape, const float* queries,
                         const uint16_t* const* keys, const uint16_t* const* values, int64_t first,
                         int64_t last, const float* sinks, float* out) {
  alignas(64) float scores[Heads][kPage];
  alignas(64) float sums[Heads * 512];
  float largest[Heads];
  float total[Heads];
  float shrink[Heads];
  for (int h = 0; h < Heads; ++h) {
    largest[h] = -__builtin_inff();
    total[h] = 0.0f;
  }
  for (int i = 0; i < Heads * shape.padded_dim; ++i) sums[i] = 0.0f;
  for (int64_t page = first / kPage; page <= last / kPage; ++page) {
    const int64_t start = page * kPage;
    const int begin = first > start ? static_cast<int>(first - start) : 0;
    const int end = last - start + 1 < kPage ? static_cast<int>(last - start + 1) : kPage;
    score_page<Heads>(queries, shape.head_dim, keys[page], scores);
    for (int h = 0; h < Heads; ++h) {
      shrink[h] = soften_page(shape, begin, end, scores[h], largest[h], total[h]);
    }
    gather_page<Heads>(scores, shrink, end, values[page], shape.padded_dim, sums);
  }
  for (int h = 0; h < Heads; ++h) {
    if (sinks) {  // a sink takes its share of the sum and gives nothing
      alignas(64) float share[16];
      store(share, exp(broadcast(sinks[h] - largest[h])));
      total[h] += share[0];
    }
    const Floats inverse = broadcast(1.0f / total[h]);
    for_each(shape.head_dim, out + h * shape.head_dim,
             [&](int64_t i, int) { return load(sums + h * shape.padded_dim + i) * inverse; });
  }
}

inline void attend(const AttentionShape& shape, const float* queries, const uint16_t* const* keys,
                   const uint16_t* const* values, int64_t first, int64_t last, const float* sinks,
                   float* out) {
  int head = 0;
  const auto from = [&](auto run, int heads) {
    run(shape, queries + head * shape.head_dim, keys, values, first, last,
        sinks ? sinks + head : nullptr, out + head * shape.head_dim);
    head += heads;
  };
  while (shape.heads_per_kv - head >= 4) from(attend_heads<4>, 4);
  if (shape.heads_per_kv - head == 3) from(attend_heads<3>, 3);
  if (shape.heads_per_kv - head == 2) from(attend_heads<2>, 2);
  if (shape.heads_per_kv - head == 1) from(attend_heads<1>, 1);
}

}  // namespace trit::TRIT_ISA
