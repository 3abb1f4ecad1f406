// Runs a plan: whole passes, or layer by layer, over batches of (sequence, position, token) rows.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "arena.h"
#include "buffers.h"
#include "cache.h"
#include "kernels.h"
#include "model.h"
#include "prepared.h"
#include "routing.h"
#include "threads.h"

namespace trit {

// Rows of a batch. A prompt, a step of decoding, the check of a draft and many users are one thing.
struct Rows {
  const int32_t* sequences;
  const int64_t* positions;
  int count;
};

// What a layer shows of itself.
struct Taps {
  // weight handle → where the inputs of that linear go, [rows][columns] floats; of a stack of
  // experts [rows][top_k][columns].
  std::map<int, float*> inputs;
  // weight handle → where the squares of those inputs are added up, [columns]; of a stack of
  // experts [experts][columns], each expert's own.
  std::map<int, double*> squares;
  int32_t* experts = nullptr;  // where the chosen experts go, [rows][top_k], ascending
};

class Decoder {
 public:
  // `repack`: the first pass copies the weights into tiles, which are read faster. Throws
  // std::invalid_argument for a model the kernels cannot run.
  Decoder(Model model, const Kernels& kernels, int threads, int64_t positions, int64_t pages,
          int batch, CacheType cache_type, bool repack);

  void embed(const int32_t* tokens, int count, float* hidden);
  // Writes keys and values of these rows, then hidden → hidden of the next layer. `begin` first.
  void layer(int index, const Rows& rows, float* hidden, const Taps* taps);
  void head(const float* hidden, int count, float* logits);

  // Reserves the rows' cells in the cache (all or nothing) and prepares their rotations. `drop`:
  // lets go of what lies behind their windows; not for layers run one by one, which come back to
  // the first rows.
  void begin(const Rows& rows, bool drop);

  // embed, every layer, and for each chunk of at most `batch` rows calls done(first, count,
  // hidden).
  template <typename F>
  void pass(const int32_t* tokens, const Rows& rows, F&& done) {
    for (int first = 0; first < rows.count; first += batch_) {
      const int count = rows.count - first < batch_ ? rows.count - first : batch_;
      const Rows part{rows.sequences + first, rows.positions + first, count};
      hidden_.resize(static_cast<size_t>(count) * model_.width);
      begin(part, true);
      embed(tokens + first, count, hidden_.data());
      for (size_t i = 0; i < model_.layers.size(); ++i) {
        layer(static_cast<int>(i), part, hidden_.data(), nullptr);
      }
      done(first, count, hidden_.data());
    }
  }

  const Model& model() const { return model_; }
  Cache& cache() { return cache_; }
  const Kernels& kernels() const { return kernels_; }
  int threads() const { return threads_.count(); }
  Threads& pool() { return threads_; }
  int64_t tile_bytes() const { return tiles_ ? tiles_->bytes() : 0; }

 private:
  // A linear and where its [rows][out_stride] output goes.
  struct Product {
    Linear* linear;
    float* out;
  };
  // A stack of experts and where its [slots][rows] output goes.
  struct ExpertProduct {
    int weight;
    int64_t rows;  // of each expert
    float* out;
    ExpertTiles* tiles;
  };
  struct Rotation {
    std::vector<float> cos, sin;  // [rows][pairs]
  };
  // Consecutive positions of one sequence among the rows of a pass.
  struct Run {
    int row;
    int count;
    int64_t position;  // of the first row
    size_t pages;      // place in pages_[group] of the sequence's page 0
  };
  // Part of a run, whose attention to one key head is one task; or one for each span it sees.
  struct Block {
    AttentionRows rows;  // of key head 0
    int64_t first_span;
    int64_t spans;
    int64_t first_task;
    int64_t partial;  // place in partials_ of its first span
  };

  void check() const;
  std::vector<Linear*> linears();
  void make_room_for_tiles();
  Matrix matrix(const Linear& linear) const;
  Matrix expert_matrix(int weight, int64_t rows, int64_t expert, const ExpertTiles& tiles) const;
  void tap(int weight, const float* x, int64_t columns, int count);
  void products(const float* x, int64_t columns, int count, const Product* products, int n);
  void pack_rows(const Matrix& w, int64_t begin, int64_t end, uint8_t* tiles) const;
  Prepared& prepare(const float* x, int64_t columns, int count, const Format& format);
  void normalize(const Norm& norm, const float* x, int count, int64_t width, float* out);
  void add_branch(const std::optional<Norm>& norm, float* branch, int count, float* hidden);
  void attention(int index, const Rows& rows, const float* x, float* out);
  void rotate_and_store(int index, const Rows& rows);
  void attend(int index);
  void find_runs(const Rows& rows);
  void find_blocks(const AttentionShape& shape, int index);
  AttentionRows of_head(const AttentionRows& rows, int index, int head) const;
  void attend_in_spans(const AttentionShape& shape, int index);
  void feed_forward(FeedForward& ff, const float* x, int count, float* out);
  void feed_forward(MixtureOfExperts& mixture, const float* x, int count, float* out);
  void route(MixtureOfExperts& mixture, const float* x, int count);
  Prepared& expert_inputs(const float* x, int64_t columns, bool one_row, int index,
                          const Format& format);
  void multiply_experts(const float* x, int64_t columns, bool one_row,
                        const ExpertProduct* products, int n);
  void tap_experts(int weight, const float* x, int64_t columns, bool one_row);
  void mix_experts(const MixtureOfExperts& mixture, int count, float* out);
  void heads(const Attention& mixer, const std::optional<Norm>& norm, int row, int heads, float* x);

  Model model_;
  const Kernels& kernels_;
  Threads threads_;
  Cache cache_;
  std::optional<Arena> tiles_;
  int batch_;
  const Taps* taps_ = nullptr;
  std::vector<Rotation> rotations_;  // one per Model::ropes
  Buffer<float> hidden_, normed_, branch_, q_, k_, v_, mixed_, gate_, up_;
  std::vector<Buffer<float>> scratch_;  // per worker
  std::vector<Run> runs_;
  std::vector<std::vector<const uint8_t*>> pages_;  // [group], of the runs' sequences
  std::vector<std::vector<uint8_t*>> row_pages_;    // [group][row], that a row is written to
  std::vector<Block> blocks_;
  Buffer<float> partials_;
  std::vector<Prepared> prepared_;
  size_t prepared_count_ = 0;  // of the current products
  Routing routing_;
  Prepared expert_inputs_[2];
};

}  // namespace trit
