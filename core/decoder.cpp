#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "buffers.h"
#include "moments.h"
#include "packed.h"

namespace trit {
namespace {

// Linears that share an input: Q, K and V. Each may want its own arrangement of it.
constexpr size_t kProducts = 3;

}  // namespace

Decoder::Decoder(Model model, const Kernels& kernels, int threads, int64_t positions, int64_t pages,
                 int batch, CacheType cache_type, bool repack)
    : model_(std::move(model)),
      kernels_(kernels),
      threads_(threads),
      cache_(model_, cache_type, positions, pages),
      batch_(batch),
      rotations_(model_.ropes.size()),
      scratch_(static_cast<size_t>(threads_.count())),
      prepared_(kProducts) {
  check();
  if (repack) make_room_for_tiles();
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  for (Layer& layer : model_.layers) {
    Attention& mixer = layer.mixer;
    all.insert(all.end(), {&mixer.q, &mixer.k, &mixer.v, &mixer.output});
    FeedForward* dense = std::get_if<FeedForward>(&layer.feed_forward);
    if (auto* mixture = std::get_if<MixtureOfExperts>(&layer.feed_forward)) {
      all.push_back(&mixture->router);
      if (mixture->shared_gate) all.push_back(&*mixture->shared_gate);
      if (mixture->shared) dense = &*mixture->shared;
    }
    if (!dense) continue;
    all.insert(all.end(), {&dense->up, &dense->down});
    if (dense->gate) all.push_back(&*dense->gate);
  }
  all.push_back(&model_.head);
  return all;
}

void Decoder::make_room_for_tiles() {
  int64_t bytes = 0;
  std::vector<Linear*> packed;
  for (Linear* linear : linears()) {
    const Matrix w = matrix(*linear);
    if (!w.format->panel) continue;
    packed.push_back(linear);
    bytes += packed_bytes(w);
  }
  struct Stack {
    ExpertTiles* tiles;
    int64_t experts;
    int64_t bytes;
  };
  std::vector<Stack> stacks;
  for (Layer& layer : model_.layers) {
    auto* mixture = std::get_if<MixtureOfExperts>(&layer.feed_forward);
    if (!mixture) continue;
    const int64_t experts = mixture->router.rows;
    const auto add = [&](int handle, ExpertTiles& tiles) {
      const Matrix& w = model_.weights[static_cast<size_t>(handle)];
      if (!w.format->panel) return;
      const int64_t size =
          experts * packed_bytes(expert_matrix(handle, w.rows / experts, 0, tiles));
      stacks.push_back({&tiles, experts, size});
      bytes += size;
    };
    add(mixture->gate, mixture->gate_tiles);
    add(mixture->up, mixture->up_tiles);
    add(mixture->down, mixture->down_tiles);
  }
  tiles_.emplace(bytes);
  for (Linear* linear : packed) linear->tiles = tiles_->take(packed_bytes(matrix(*linear)));
  for (const Stack& stack : stacks) {
    stack.tiles->tiles = tiles_->take(stack.bytes);
    stack.tiles->packed.assign(static_cast<size_t>(stack.experts), 0);
  }
}

Matrix Decoder::matrix(const Linear& linear) const {
  Matrix w = model_.weights[static_cast<size_t>(linear.weight)];
  w.data += linear.row_start * w.row_bytes;
  w.rows = linear.rows;
  w.tiles = linear.tiles;
  w.tiles_bytes = linear.tiles ? tiles_bytes(w) : 0;
  return w;
}

// One expert of a stack.
Matrix Decoder::expert_matrix(int weight, int64_t rows, int64_t expert,
                              const ExpertTiles& tiles) const {
  Matrix w = model_.weights[static_cast<size_t>(weight)];
  w.data += rows * expert * w.row_bytes;
  w.rows = rows;
  if (tiles.tiles) {
    w.tiles_bytes = tiles_bytes(w);
    w.tiles = tiles.tiles + expert * packed_bytes(w);
  }
  return w;
}

// Whoever built the plan, nothing below reads or writes outside of memory.
void Decoder::check() const {
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(what);
  };
  const auto weight = [&](int handle) -> const Matrix& {
    require(handle >= 0 && handle < static_cast<int>(model_.weights.size()), "weight handle");
    return model_.weights[static_cast<size_t>(handle)];
  };
  const auto linear = [&](const Linear& l, int64_t columns, int64_t rows, const char* what) {
    const Matrix& w = weight(l.weight);
    require(l.row_start >= 0 && l.rows == rows && l.row_start + l.rows <= w.rows, what);
    require(w.columns == columns && columns % w.format->block_weights == 0, what);
    require(!w.format->panel || columns % kActivationBlock == 0, what);
    require(l.bias.empty() || static_cast<int64_t>(l.bias.size()) == l.rows, "length of a bias");
  };
  const auto norm = [&](const std::optional<Norm>& n, int64_t width) {
    require(!n || static_cast<int64_t>(n->weight.size()) == width, "length of a norm");
  };
  const int64_t width = model_.width;
  const auto dense = [&](const FeedForward& ff) {
    const int64_t inner = ff.up.rows;
    require(inner > 0, "rows of the feed-forward");
    if (ff.gate) linear(*ff.gate, width, inner, "shape of the gate");
    linear(ff.up, width, inner, "shape of the up projection");
    linear(ff.down, inner, width, "shape of the down projection");
    norm(ff.sub_norm, inner);
  };
  const auto stack = [&](int handle, int64_t columns, int64_t rows, const char* what) {
    linear({handle, 0, rows, {}}, columns, rows, what);
    require(weight(handle).rows == rows, what);
  };
  const auto experts = [&](const MixtureOfExperts& mixture) {
    const int64_t count = mixture.router.rows;
    require(count > 0 && count < (1 << 20), "number of experts");
    require(mixture.top_k > 0 && mixture.top_k <= count, "number of experts used");
    linear(mixture.router, width, count, "shape of the router");
    const int64_t inner = weight(mixture.up).rows / count;
    require(inner > 0, "rows of an expert");
    stack(mixture.gate, width, count * inner, "shape of the experts' gates");
    stack(mixture.up, width, count * inner, "shape of the experts' up projections");
    stack(mixture.down, inner, count * width, "shape of the experts' down projections");
    if (mixture.shared) dense(*mixture.shared);
    if (mixture.shared_gate) linear(*mixture.shared_gate, width, 1, "shape of the shared gate");
  };
  require(width > 0 && weight(model_.embedding).columns == width, "columns of the embedding");
  require(width % weight(model_.embedding).format->block_weights == 0, "columns of the embedding");
  require(static_cast<int64_t>(model_.output_norm.weight.size()) == width, "length of a norm");
  linear(model_.head, width, model_.head.rows, "shape of the head");
  for (const Layer& layer : model_.layers) {
    const Attention& a = layer.mixer;
    require(a.heads > 0 && a.kv_heads > 0 && a.heads % a.kv_heads == 0, "attention heads");
    require(a.head_dim > 0 && a.head_dim <= 512, "head dimension (at most 512)");
    const int64_t q_width = static_cast<int64_t>(a.heads) * a.head_dim;
    const int64_t kv_width = static_cast<int64_t>(a.kv_heads) * a.head_dim;
    linear(a.q, width, q_width, "shape of the queries");
    linear(a.k, width, kv_width, "shape of the keys");
    linear(a.v, width, kv_width, "shape of the values");
    linear(a.output, q_width, width, "shape of the attention's output");
    require(a.rope < static_cast<int>(model_.ropes.size()), "rope index");
    if (a.rope >= 0) {
      const size_t pairs = model_.ropes[static_cast<size_t>(a.rope)].inv_freq.size();
      require(2 * pairs <= static_cast<size_t>(a.head_dim), "rope wider than the head");
    }
    require(a.sinks.empty() || static_cast<int>(a.sinks.size()) == a.heads, "number of sinks");
    norm(a.q_norm, a.head_dim);
    norm(a.k_norm, a.head_dim);
    norm(a.sub_norm, q_width);
    if (const auto* mixture = std::get_if<MixtureOfExperts>(&layer.feed_forward)) {
      experts(*mixture);
    } else {
      dense(std::get<FeedForward>(layer.feed_forward));
    }
    for (const std::optional<Norm>* n : {&layer.mixer_norm, &layer.mixer_post_norm,
                                         &layer.feed_forward_norm, &layer.feed_forward_post_norm}) {
      norm(*n, width);
    }
  }
}

void Decoder::begin(const Rows& rows, bool drop) {
  std::map<int, int64_t> held;
  for (int r = 0; r < rows.count; ++r) {
    const int sequence = rows.sequences[r];
    const bool first = held.try_emplace(sequence, cache_.length(sequence)).second;
    // Not all that may go: whoever takes rows back finds those of a whole pass before these.
    if (first && drop) cache_.drop(sequence, rows.positions[r] - batch_);
  }
  try {
    for (int r = 0; r < rows.count; ++r) cache_.extend(rows.sequences[r], rows.positions[r]);
  } catch (...) {  // out of memory: what was written before stays, no empty cell does
    for (const auto& [sequence, length] : held) cache_.remove(sequence, length);
    throw;
  }
  find_runs(rows);
  for (size_t i = 0; i < model_.ropes.size(); ++i) {
    const Rope& rope = model_.ropes[i];
    const size_t pairs = rope.inv_freq.size();
    Rotation& rotation = rotations_[i];
    rotation.cos.resize(pairs * static_cast<size_t>(rows.count));
    rotation.sin.resize(pairs * static_cast<size_t>(rows.count));
    for (int r = 0; r < rows.count; ++r) {
      for (size_t p = 0; p < pairs; ++p) {
        const float angle = static_cast<float>(rows.positions[r]) * rope.inv_freq[p];
        const size_t at = static_cast<size_t>(r) * pairs + p;
        rotation.cos[at] =
            static_cast<float>(std::cos(static_cast<double>(angle))) * rope.magnitude;
        rotation.sin[at] =
            static_cast<float>(std::sin(static_cast<double>(angle))) * rope.magnitude;
      }
    }
  }
}

void Decoder::embed(const int32_t* tokens, int count, float* hidden) {
  const Matrix& table = model_.weights[static_cast<size_t>(model_.embedding)];
  threads_.run(count, 8, [&](int64_t t, int) {
    float* row = hidden + t * model_.width;
    table.format->decode(table.data + tokens[t] * table.row_bytes, model_.width, row);
    if (model_.embedding_scale != 1.0f) kernels_.scale(model_.embedding_scale, model_.width, row);
  });
}

// Rows [begin, end) to their place among all tiles of the matrix.
void Decoder::pack_rows(const Matrix& w, int64_t begin, int64_t end, uint8_t* tiles) const {
  for (int64_t row = begin; row < end; row += kTileRows) {
    kernels_.pack(w, row, tiles + row / kTileRows * w.tiles_bytes);
    if (w.mapped) forget_piece(w, row);
  }
}

// Arranges x for `format`; products of one input share what they can.
Prepared& Decoder::prepare(const float* x, int64_t columns, int count, const Format& format) {
  for (size_t i = 0; i < prepared_count_; ++i) {
    if (prepared_[i].suits(format)) return prepared_[i];
  }
  Prepared& p = prepared_[prepared_count_++];
  p.shape(format, columns, count);
  const int64_t tasks = (count + kernels_.tokens - 1) / kernels_.tokens;
  threads_.run(tasks, 1, [&](int64_t task, int) {
    const int first = static_cast<int>(task) * kernels_.tokens;
    const int part = std::min(kernels_.tokens, count - first);
    if (p.floats) {
      kernels_.arrange_activations(x, columns, columns, first, part, p.reals(0, count));
    } else {
      kernels_.quantize_activations(x, columns, first, part, p.offset, p.integers(0, count));
    }
  });
  return p;
}

void Decoder::tap(int weight, const float* x, int64_t columns, int count) {
  if (!taps_) return;
  const auto inputs = taps_->inputs.find(weight);
  if (inputs != taps_->inputs.end()) {
    std::memcpy(inputs->second, x, static_cast<size_t>(columns * count) * sizeof(float));
  }
  const auto squares = taps_->squares.find(weight);
  if (squares != taps_->squares.end()) {
    add_squares(threads_, kernels_, x, count, columns, squares->second);
  }
}

// Several linears of one input, their tiles shared out together.
void Decoder::products(const float* x, int64_t columns, int count, const Product* products, int n) {
  struct Work {
    Matrix matrix;
    uint8_t* pack;  // its tiles, if they are still to be filled
    Prepared* input;
    const float* bias;
    float* out;
    int64_t stride;
    int64_t first_task;
  };
  Work works[kProducts];
  int64_t tiles = 0;
  if (count == 0) return;
  prepared_count_ = 0;
  for (int i = 0; i < n; ++i) {
    const Linear& linear = *products[i].linear;
    const Matrix w = matrix(linear);
    bool seen = false;  // by a linear before, which views the same matrix
    for (int j = 0; j < i; ++j) seen = seen || products[j].linear->weight == linear.weight;
    if (!seen) tap(linear.weight, x, columns, count);
    works[i] = {w,
                linear.packed ? nullptr : linear.tiles,
                &prepare(x, columns, count, *w.format),
                linear.bias.empty() ? nullptr : linear.bias.data(),
                products[i].out,
                linear.rows,
                0};
    tiles += (w.rows + kTileRows - 1) / kTileRows;
  }
  const int64_t stripe = stripe_tiles(tiles, threads_.count(), count) * kTileRows;
  int64_t tasks = 0;
  for (int i = 0; i < n; ++i) {
    works[i].first_task = tasks;
    tasks += (works[i].matrix.rows + stripe - 1) / stripe;
  }
  for (Buffer<float>& scratch : scratch_) fit(scratch, product_scratch(count));
  const int64_t grain = std::max<int64_t>(1, tasks / (threads_.count() * 8));
  threads_.run(tasks, grain, [&](int64_t task, int worker) {
    int i = n - 1;
    while (task < works[i].first_task) --i;
    const Work& work = works[i];
    const int64_t begin = (task - work.first_task) * stripe;
    const int64_t end = std::min(begin + stripe, work.matrix.rows);
    float* scratch = scratch_[static_cast<size_t>(worker)].data();
    if (work.input->floats) {
      for (int64_t row = begin; row < end; row += kTileRows) {
        kernels_.multiply_float(work.matrix, row, work.input->reals(0, count), work.bias, scratch,
                                work.out, work.stride);
      }
      return;
    }
    if (work.pack) pack_rows(work.matrix, begin, end, work.pack);
    kernels_.multiply(work.matrix, begin, end, work.input->integers(0, count), work.bias, scratch,
                      work.out, work.stride);
  });
  for (int i = 0; i < n; ++i) {
    if (!works[i].pack) continue;
    products[i].linear->packed = true;
    if (works[i].matrix.mapped) forget_pages(works[i].matrix);
  }
}

void Decoder::normalize(const Norm& norm, const float* x, int count, int64_t width, float* out) {
  threads_.run(count, 8, [&](int64_t t, int) {
    kernels_.rms_norm(x + t * width, norm.weight.data(), norm.eps, static_cast<int>(width),
                      out + t * width);
  });
}

void Decoder::add_branch(const std::optional<Norm>& norm, float* branch, int count, float* hidden) {
  const int64_t width = model_.width;
  threads_.run(count, 8, [&](int64_t t, int) {
    float* row = branch + t * width;
    if (norm) {
      kernels_.rms_norm(row, norm->weight.data(), norm->eps, static_cast<int>(width), row);
    }
    kernels_.add(row, width, hidden + t * width);
  });
}

void Decoder::layer(int index, const Rows& rows, float* hidden, const Taps* taps) {
  Layer& layer = model_.layers[static_cast<size_t>(index)];
  const int n = rows.count;
  if (n == 0) return;
  taps_ = taps;
  fit(normed_, n * model_.width);
  fit(branch_, n * model_.width);
  const float* x = hidden;
  if (layer.mixer_norm) {
    normalize(*layer.mixer_norm, hidden, n, model_.width, normed_.data());
    x = normed_.data();
  }
  attention(index, rows, x, branch_.data());
  add_branch(layer.mixer_post_norm, branch_.data(), n, hidden);
  x = hidden;
  if (layer.feed_forward_norm) {
    normalize(*layer.feed_forward_norm, hidden, n, model_.width, normed_.data());
    x = normed_.data();
  }
  std::visit([&](auto& part) { feed_forward(part, x, n, branch_.data()); }, layer.feed_forward);
  add_branch(layer.feed_forward_post_norm, branch_.data(), n, hidden);
  taps_ = nullptr;
}

void Decoder::attention(int index, const Rows& rows, const float* x, float* out) {
  Attention& mixer = model_.layers[static_cast<size_t>(index)].mixer;
  const int n = rows.count;
  const int64_t q_width = static_cast<int64_t>(mixer.heads) * mixer.head_dim;
  const int64_t kv_width = static_cast<int64_t>(mixer.kv_heads) * mixer.head_dim;
  fit(q_, n * q_width);
  fit(k_, n * kv_width);
  fit(v_, n * kv_width);
  fit(mixed_, n * q_width);
  const Product qkv[] = {{&mixer.q, q_.data()}, {&mixer.k, k_.data()}, {&mixer.v, v_.data()}};
  products(x, model_.width, n, qkv, 3);
  rotate_and_store(index, rows);
  attend(index);
  if (mixer.sub_norm) normalize(*mixer.sub_norm, mixed_.data(), n, q_width, mixed_.data());
  const Product output = {&mixer.output, out};
  products(mixed_.data(), q_width, n, &output, 1);
}

void Decoder::feed_forward(FeedForward& ff, const float* x, int count, float* out) {
  const int64_t inner = ff.up.rows;
  fit(up_, count * inner);
  if (ff.gate) {
    fit(gate_, count * inner);
    const Product both[] = {{&*ff.gate, gate_.data()}, {&ff.up, up_.data()}};
    products(x, model_.width, count, both, 2);
  } else {
    const Product up = {&ff.up, up_.data()};
    products(x, model_.width, count, &up, 1);
  }
  threads_.run(count, 1, [&](int64_t t, int) {
    float* row = &up_[static_cast<size_t>(t * inner)];
    if (ff.gate) {
      const float* gate = &gate_[static_cast<size_t>(t * inner)];
      kernels_.activate_gated(ff.activation, gate, row, inner, row);
    } else {
      kernels_.activate(ff.activation, inner, row);
    }
    if (ff.sub_norm) {
      kernels_.rms_norm(row, ff.sub_norm->weight.data(), ff.sub_norm->eps, static_cast<int>(inner),
                        row);
    }
  });
  const Product down = {&ff.down, out};
  products(up_.data(), inner, count, &down, 1);
}

void Decoder::head(const float* hidden, int count, float* logits) {
  fit(normed_, count * model_.width);
  normalize(model_.output_norm, hidden, count, model_.width, normed_.data());
  const Product head = {&model_.head, logits};
  products(normed_.data(), model_.width, count, &head, 1);
  const int64_t vocab = model_.head.rows;
  threads_.run(count, 1, [&](int64_t t, int) {
    float* row = logits + t * vocab;
    if (model_.head_scale != 1.0f) kernels_.scale(model_.head_scale, vocab, row);
    if (model_.head_soft_cap > 0.0f) kernels_.soft_cap(model_.head_soft_cap, vocab, row);
  });
}

}  // namespace trit
