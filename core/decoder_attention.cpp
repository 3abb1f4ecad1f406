// The decoder's attention: which rows share pages, and how the work is cut into tasks. No cut
// changes a bit of the result.
#include <algorithm>

#include "buffers.h"
#include "decoder.h"

namespace trit {
namespace {

// Queries of a block: enough to convert a page for, few enough for their sums to stay in the
// second-level cache.
constexpr int kBlockQueries = 64;

// With fewer tasks than this for each thread, spans become tasks of their own.
constexpr int64_t kTasksPerThread = 4;

}  // namespace

void Decoder::find_runs(const Rows& rows) {
  runs_.clear();
  size_t pages = 0;
  for (int r = 0; r < rows.count; ++r) {
    const int64_t position = rows.positions[r];
    if (r > 0 && rows.sequences[r] == rows.sequences[r - 1] &&
        position == rows.positions[r - 1] + 1) {
      ++runs_.back().count;
      continue;
    }
    runs_.push_back({r, 1, position, pages});
    pages += static_cast<size_t>(cache_.pages(rows.sequences[r]));
  }
  pages_.resize(static_cast<size_t>(cache_.groups()));
  row_pages_.resize(pages_.size());
  for (int group = 0; group < cache_.groups(); ++group) {
    std::vector<const uint8_t*>& all = pages_[static_cast<size_t>(group)];
    std::vector<uint8_t*>& written = row_pages_[static_cast<size_t>(group)];
    all.clear();
    written.clear();
    for (const Run& run : runs_) {
      const int sequence = rows.sequences[run.row];
      for (int64_t page = 0; page < cache_.pages(sequence); ++page) {
        all.push_back(cache_.page(sequence, group, page));
      }
    }
    for (int r = 0; r < rows.count; ++r) {
      written.push_back(cache_.page(rows.sequences[r], group, rows.positions[r] / kPage));
    }
  }
}

// Norm and rotation of one row's heads.
void Decoder::heads(const Attention& mixer, const std::optional<Norm>& norm, int row, int heads,
                    float* x) {
  for (int h = 0; h < heads; ++h) {
    float* head = x + (static_cast<int64_t>(row) * heads + h) * mixer.head_dim;
    if (norm) kernels_.rms_norm(head, norm->weight.data(), norm->eps, mixer.head_dim, head);
    if (mixer.rope < 0) continue;
    const Rope& rope = model_.ropes[static_cast<size_t>(mixer.rope)];
    const Rotation& rotation = rotations_[static_cast<size_t>(mixer.rope)];
    const size_t pairs = rope.inv_freq.size();
    const size_t at = static_cast<size_t>(row) * pairs;
    kernels_.rope(rotation.cos.data() + at, rotation.sin.data() + at, static_cast<int>(pairs),
                  rope.adjacent, head);
  }
}

void Decoder::rotate_and_store(int index, const Rows& rows) {
  const Attention& mixer = model_.layers[static_cast<size_t>(index)].mixer;
  const int dim = mixer.head_dim;
  const int padded = Cache::padded_dim(mixer);
  const std::vector<uint8_t*>& written = row_pages_[static_cast<size_t>(cache_.group(index))];
  threads_.run(rows.count, 1, [&](int64_t task, int) {
    const int r = static_cast<int>(task);
    heads(mixer, mixer.q_norm, r, mixer.heads, q_.data());
    heads(mixer, mixer.k_norm, r, mixer.kv_heads, k_.data());
    uint8_t* page = written[static_cast<size_t>(r)];
    const int slot = static_cast<int>(rows.positions[r] % kPage);
    for (int h = 0; h < mixer.kv_heads; ++h) {
      const size_t at =
          (static_cast<size_t>(r) * static_cast<size_t>(mixer.kv_heads) + static_cast<size_t>(h)) *
          static_cast<size_t>(dim);
      kernels_.store_key(cache_.type(), &k_[at], dim, padded, slot, page + cache_.keys(index, h));
      kernels_.store_value(cache_.type(), &v_[at], dim, padded, slot,
                           page + cache_.values(index, h));
    }
  });
}

// Cuts the runs into blocks, and says what each sees.
void Decoder::find_blocks(const AttentionShape& shape, int index) {
  const Attention& mixer = model_.layers[static_cast<size_t>(index)].mixer;
  const int most = std::max(1, kBlockQueries / shape.heads_per_kv);
  const int64_t stride = static_cast<int64_t>(mixer.heads) * mixer.head_dim;
  const std::vector<const uint8_t*>& pages = pages_[static_cast<size_t>(cache_.group(index))];
  blocks_.clear();
  int64_t tasks = 0;
  int64_t partial = 0;
  for (const Run& run : runs_) {
    for (int row = 0; row < run.count; row += most) {
      const int count = std::min(most, run.count - row);
      const int64_t position = run.position + row;
      const int64_t first =
          mixer.window > 0 ? std::max<int64_t>(0, position - mixer.window + 1) : 0;
      const int64_t first_span = first / kPage / kSpanPages;
      const int64_t spans = (position + count - 1) / kPage / kSpanPages - first_span + 1;
      const int64_t at = (run.row + row) * stride;
      blocks_.push_back({{count, position, stride, &q_[static_cast<size_t>(at)], &pages[run.pages],
                          0, 0, nullptr, &mixed_[static_cast<size_t>(at)]},
                         first_span,
                         spans,
                         tasks,
                         partial});
      tasks += spans * mixer.kv_heads;
      partial +=
          spans * mixer.kv_heads * partial_floats(count * shape.heads_per_kv, shape.padded_dim);
    }
  }
}

AttentionRows Decoder::of_head(const AttentionRows& rows, int index, int head) const {
  const Attention& mixer = model_.layers[static_cast<size_t>(index)].mixer;
  const int per_kv = mixer.heads / mixer.kv_heads;
  AttentionRows own = rows;
  own.keys = cache_.keys(index, head);
  own.values = cache_.values(index, head);
  own.queries += static_cast<int64_t>(head) * per_kv * mixer.head_dim;
  own.out += static_cast<int64_t>(head) * per_kv * mixer.head_dim;
  own.sinks = mixer.sinks.empty() ? nullptr : &mixer.sinks[static_cast<size_t>(head * per_kv)];
  return own;
}

void Decoder::attend(int index) {
  const Attention& mixer = model_.layers[static_cast<size_t>(index)].mixer;
  const int padded = Cache::padded_dim(mixer);
  const AttentionShape shape = {mixer.heads / mixer.kv_heads,
                                mixer.head_dim,
                                padded,
                                mixer.scale,
                                mixer.soft_cap,
                                mixer.window,
                                cache_.type()};
  find_blocks(shape, index);
  const int most = std::max(shape.heads_per_kv, kBlockQueries);
  for (Buffer<float>& scratch : scratch_) fit(scratch, attention_scratch(most, padded));
  const int64_t heads = mixer.kv_heads;
  const int64_t tasks = static_cast<int64_t>(blocks_.size()) * heads;
  const bool one_span = blocks_.size() == 1 && blocks_[0].spans == 1;
  if (tasks < kTasksPerThread * threads_.count() && !one_span) {
    attend_in_spans(shape, index);
    return;
  }
  threads_.run(tasks, 1, [&](int64_t task, int worker) {
    // The last rows of a prompt see most: they come first, so that no thread ends late with them.
    const Block& block = blocks_[static_cast<size_t>((tasks - 1 - task) / heads)];
    kernels_.attend(shape, of_head(block.rows, index, static_cast<int>(task % heads)),
                    scratch_[static_cast<size_t>(worker)].data());
  });
}

// A task for each span of each block and head, then their sum.
void Decoder::attend_in_spans(const AttentionShape& shape, int index) {
  const int64_t heads = model_.layers[static_cast<size_t>(index)].mixer.kv_heads;
  const auto place_of = [&](const Block& block, int64_t place) {
    const int queries = block.rows.count * shape.heads_per_kv;
    return block.partial + place * partial_floats(queries, shape.padded_dim);
  };
  const Block& last = blocks_.back();
  fit(partials_, place_of(last, last.spans * heads));
  const auto partial_of = [&](const Block& block, int64_t place) {
    return &partials_[static_cast<size_t>(place_of(block, place))];
  };
  threads_.run(last.first_task + last.spans * heads, 1, [&](int64_t task, int worker) {
    const auto after = std::upper_bound(
        blocks_.begin(), blocks_.end(), task,
        [](int64_t number, const Block& block) { return number < block.first_task; });
    const Block& block = *(after - 1);
    const int64_t place = task - block.first_task;
    kernels_.attend_span(shape, of_head(block.rows, index, static_cast<int>(place / block.spans)),
                         block.first_span + place % block.spans,
                         scratch_[static_cast<size_t>(worker)].data(), partial_of(block, place));
  });
  const int64_t merges = static_cast<int64_t>(blocks_.size()) * heads;
  threads_.run(merges, 1, [&](int64_t task, int worker) {
    const Block& block = blocks_[static_cast<size_t>(task / heads)];
    const int64_t head = task % heads;
    kernels_.attend_merge(shape, of_head(block.rows, index, static_cast<int>(head)), block.spans,
                          partial_of(block, head * block.spans),
                          scratch_[static_cast<size_t>(worker)].data());
  });
}

}  // namespace trit
