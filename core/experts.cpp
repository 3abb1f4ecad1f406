// Mixtures of experts: which rows of a batch go to which expert, and the experts' products.
//
// The rows are sorted by expert into `slots`, so that each expert's weights are read once per
// batch. The tiles of all chosen experts are shared out together: one parallel region for gate and
// up, one for down. A row's result is the sum over its experts in ascending order, whatever else
// is in the batch.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "buffers.h"
#include "decoder.h"
#include "packed.h"

namespace trit {
namespace {

// Softmax of p[0, n) in place.
void softmax(int64_t n, float* p) {
  const float largest = *std::max_element(p, p + n);
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    p[i] = std::exp(p[i] - largest);
    sum += p[i];
  }
  for (int64_t i = 0; i < n; ++i) p[i] /= sum;
}

// The indices of the k largest of p[0, n), of equals the first; ascending. k different indices
// come out even where p is not a number.
void largest(const float* p, int64_t n, int k, int32_t* indices) {
  for (int64_t i = 0; i < n; ++i) {
    const int held = static_cast<int>(std::min<int64_t>(i, k));
    int at = held;
    while (at > 0 && p[i] > p[indices[at - 1]]) --at;
    if (at == k) continue;
    const int kept = std::min(held, k - 1);
    std::copy_backward(indices + at, indices + kept, indices + kept + 1);
    indices[at] = static_cast<int32_t>(i);
  }
  std::sort(indices, indices + k);
}

}  // namespace

// Chooses each row's experts and gives it a slot with each.
void Decoder::route(MixtureOfExperts& mixture, const float* x, int count) {
  Routing& r = routing_;
  const int k = mixture.top_k;
  const int64_t experts = mixture.router.rows;
  fit(r.logits, count * experts);
  fit(r.experts, static_cast<int64_t>(count) * k);
  fit(r.shares, static_cast<int64_t>(count) * k);
  fit(r.slots, static_cast<int64_t>(count) * k);
  fit(r.shared_logits, count);
  const Product both[] = {
      {&mixture.router, r.logits.data()},
      {mixture.shared_gate ? &*mixture.shared_gate : nullptr, r.shared_logits.data()}};
  products(x, model_.width, count, both, mixture.shared_gate ? 2 : 1);
  threads_.run(count, 8, [&](int64_t row, int) {
    float* p = &r.logits[static_cast<size_t>(row * experts)];
    int32_t* chosen = &r.experts[static_cast<size_t>(row * k)];
    float* shares = &r.shares[static_cast<size_t>(row * k)];
    softmax(experts, p);
    largest(p, experts, k, chosen);
    float sum = 0.0f;
    for (int i = 0; i < k; ++i) sum += p[chosen[i]];
    for (int i = 0; i < k; ++i) {
      shares[i] = (mixture.renormalize ? p[chosen[i]] / sum : p[chosen[i]]) * mixture.scale;
    }
  });
  if (taps_ && taps_->experts) {
    std::copy_n(r.experts.begin(), static_cast<int64_t>(count) * k, taps_->experts);
  }
  std::vector<int> next(static_cast<size_t>(experts), 0);
  for (int i = 0; i < count * k; ++i) ++next[static_cast<size_t>(r.experts[i])];
  r.groups.clear();
  int first = 0;
  for (int e = 0; e < experts; ++e) {
    const int rows = next[static_cast<size_t>(e)];
    if (rows) r.groups.push_back({e, first, rows});
    next[static_cast<size_t>(e)] = first;
    first += rows;
  }
  for (int i = 0; i < count * k; ++i) r.slots[i] = next[static_cast<size_t>(r.experts[i])]++;
}

// The inputs of a stack in the arrangement that its format wants, the rows of each expert by
// themselves; the second stack of two may find that of the first.
Prepared& Decoder::expert_inputs(const float* x, int64_t columns, bool one_row, int index,
                                 const Format& format) {
  if (index == 1 && expert_inputs_[0].suits(format)) return expert_inputs_[0];
  Prepared& p = expert_inputs_[index];
  const std::vector<ExpertRows> single = {{0, 0, 1}};
  const std::vector<ExpertRows>& groups = one_row ? single : routing_.groups;
  const int64_t slots = groups.back().first + groups.back().count;
  p.shape(format, columns, slots);
  const int64_t tasks = static_cast<int64_t>(groups.size());
  threads_.run(tasks, (8 * tasks + slots - 1) / slots, [&](int64_t task, int) {
    const ExpertRows& g = groups[static_cast<size_t>(task)];
    const float* rows = x + columns * g.first;
    if (p.floats) {
      const FloatActivations out = p.reals(g.first, g.count);
      kernels_.arrange_activations(rows, columns, columns, 0, g.count, out);
    } else {
      const Activations out = p.integers(g.first, g.count);
      kernels_.quantize_activations(rows, columns, 0, g.count, p.offset, out);
    }
  });
  return p;
}

// One stack or two times the same inputs [slots][columns]; with `one_row` a single row is the
// input of every slot. An expert is packed by the first pass that chooses it.
void Decoder::multiply_experts(const float* x, int64_t columns, bool one_row,
                               const ExpertProduct* products, int n) {
  Prepared* inputs[2] = {};
  int64_t tiles = 0;  // of an expert
  for (int i = 0; i < n; ++i) {
    const Matrix& stack = model_.weights[static_cast<size_t>(products[i].weight)];
    tap_experts(products[i].weight, x, columns, one_row);
    inputs[i] = &expert_inputs(x, columns, one_row, i, *stack.format);
    tiles += (products[i].rows + kTileRows - 1) / kTileRows;
  }
  const std::vector<ExpertRows>& groups = routing_.groups;
  int64_t largest = 0;
  for (const ExpertRows& g : groups) largest = std::max<int64_t>(largest, g.count);
  for (Buffer<float>& scratch : scratch_) fit(scratch, product_scratch(largest));
  const int64_t experts = static_cast<int64_t>(groups.size());
  const int64_t stripe = stripe_tiles(tiles * experts, threads_.count(), largest) * kTileRows;
  const int64_t first_stripes = (products[0].rows + stripe - 1) / stripe;
  const int64_t stripes =
      n == 1 ? first_stripes : first_stripes + (products[1].rows + stripe - 1) / stripe;
  const int64_t grain = std::max<int64_t>(1, experts * stripes / (threads_.count() * 8));
  threads_.run(experts * stripes, grain, [&](int64_t task, int worker) {
    const ExpertRows& g = groups[static_cast<size_t>(task / stripes)];
    const int64_t place = task % stripes;
    const int i = place < first_stripes ? 0 : 1;
    const ExpertProduct& product = products[i];
    const int64_t begin = (i == 0 ? place : place - first_stripes) * stripe;
    const int64_t end = std::min(begin + stripe, product.rows);
    const Matrix w = expert_matrix(product.weight, product.rows, g.expert, *product.tiles);
    Prepared& p = *inputs[i];
    const int first = one_row ? 0 : g.first;
    float* scratch = scratch_[static_cast<size_t>(worker)].data();
    float* out = product.out + w.rows * g.first;
    if (p.floats) {
      for (int64_t row = begin; row < end; row += kTileRows) {
        kernels_.multiply_float(w, row, p.reals(first, g.count), nullptr, scratch, out, w.rows);
      }
      return;
    }
    if (w.tiles && !product.tiles->packed[static_cast<size_t>(g.expert)]) {
      pack_rows(w, begin, end, product.tiles->tiles + g.expert * packed_bytes(w));
    }
    kernels_.multiply(w, begin, end, p.integers(first, g.count), nullptr, scratch, out, w.rows);
  });
  for (int i = 0; i < n; ++i) {
    ExpertTiles& all = *products[i].tiles;
    if (!all.tiles) continue;
    for (const ExpertRows& g : groups) {
      uint8_t& packed = all.packed[static_cast<size_t>(g.expert)];
      if (packed) continue;
      packed = 1;
      const Matrix w = expert_matrix(products[i].weight, products[i].rows, g.expert, all);
      if (w.mapped) forget_pages(w);
    }
  }
}

// Hands out the inputs of a stack, by row and by expert instead of by slot.
void Decoder::tap_experts(int weight, const float* x, int64_t columns, bool one_row) {
  if (!taps_) return;
  const Routing& r = routing_;
  const auto squares = taps_->squares.find(weight);
  if (squares != taps_->squares.end()) {
    threads_.run(static_cast<int64_t>(r.groups.size()), 1, [&](int64_t task, int) {
      const ExpertRows& g = r.groups[static_cast<size_t>(task)];
      kernels_.add_squares(x + (one_row ? 0 : columns * g.first), columns, g.count, columns,
                           squares->second + columns * g.expert);
    });
  }
  const auto tap = taps_->inputs.find(weight);
  if (tap == taps_->inputs.end()) return;
  const int slots = r.groups.back().first + r.groups.back().count;
  for (int i = 0; i < slots; ++i) {
    const float* from = x + (one_row ? 0 : columns * r.slots[static_cast<size_t>(i)]);
    std::copy_n(from, columns, tap->second + columns * i);
  }
}

void Decoder::feed_forward(MixtureOfExperts& mixture, const float* x, int count, float* out) {
  Routing& r = routing_;
  route(mixture, x, count);
  const int64_t width = model_.width;
  const int k = mixture.top_k;
  const int64_t slots = static_cast<int64_t>(count) * k;
  const Matrix& up = model_.weights[static_cast<size_t>(mixture.up)];
  const int64_t inner = up.rows / mixture.router.rows;
  fit(r.packed, slots * width);
  fit(r.gate, slots * inner);
  fit(r.up, slots * inner);
  const bool one_row = count == 1;
  if (!one_row) {
    threads_.run(count, 8, [&](int64_t row, int) {
      for (int64_t i = row * k; i < (row + 1) * k; ++i) {
        std::copy_n(x + row * width, width,
                    &r.packed[static_cast<size_t>(r.slots[static_cast<size_t>(i)] * width)]);
      }
    });
  }
  const ExpertProduct both[] = {{mixture.gate, inner, r.gate.data(), &mixture.gate_tiles},
                                {mixture.up, inner, r.up.data(), &mixture.up_tiles}};
  multiply_experts(one_row ? x : r.packed.data(), width, one_row, both, 2);
  threads_.run(slots, 8, [&](int64_t slot, int) {
    float* row = &r.up[static_cast<size_t>(slot * inner)];
    kernels_.activate_gated(mixture.activation, &r.gate[static_cast<size_t>(slot * inner)], row,
                            inner, row);
  });
  const ExpertProduct down = {mixture.down, width, r.packed.data(), &mixture.down_tiles};
  multiply_experts(r.up.data(), inner, false, &down, 1);
  if (mixture.shared) {
    fit(r.shared, count * width);
    feed_forward(*mixture.shared, x, count, r.shared.data());
  }
  mix_experts(mixture, count, out);
}

// The sum of each row's experts in ascending order, the shared one last.
void Decoder::mix_experts(const MixtureOfExperts& mixture, int count, float* out) {
  Routing& r = routing_;
  const int64_t width = model_.width;
  const int k = mixture.top_k;
  threads_.run(count, 1, [&](int64_t row, int) {
    float* sum = out + row * width;
    std::fill_n(sum, width, 0.0f);
    const auto add = [&](float share, float* part) {
      kernels_.scale(share, width, part);
      kernels_.add(part, width, sum);
    };
    for (int64_t i = row * k; i < (row + 1) * k; ++i) {
      const int64_t slot = r.slots[static_cast<size_t>(i)];
      add(r.shares[static_cast<size_t>(i)], &r.packed[static_cast<size_t>(slot * width)]);
    }
    if (!mixture.shared) return;
    float* shared = &r.shared[static_cast<size_t>(row * width)];
    const float logit = mixture.shared_gate ? r.shared_logits[static_cast<size_t>(row)] : 0.0f;
    add(mixture.shared_gate ? 1.0f / (1.0f + std::exp(-logit)) : 1.0f, shared);
  });
}

}  // namespace trit
