// A plan with its weights, as the decoder runs it: the C++ side of src/trit/plan.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"

namespace trit {

// Rows [row_start, row_start + rows) of the weight with this handle.
struct Linear {
  int weight = -1;
  int64_t row_start = 0;
  int64_t rows = 0;
  std::vector<float> bias;
  uint8_t* tiles = nullptr;  // where its tiles go, if they are to be packed
  bool packed = false;       // they are there
};

struct Norm {
  std::vector<float> weight;
  float eps = 0.0f;
};

struct Rope {
  std::vector<float> inv_freq;
  bool adjacent = false;
  float magnitude = 1.0f;
};

struct Attention {
  Linear q, k, v, output;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 1.0f;
  int rope = -1;  // index in Model::ropes
  std::optional<Norm> q_norm, k_norm, sub_norm;
  int64_t window = 0;  // 0: sees everything before it
  float soft_cap = 0.0f;
  std::vector<float> sinks;
};

struct FeedForward {
  std::optional<Linear> gate;  // without: activation(up)
  Linear up, down;
  Activation activation = Activation::kSilu;
  std::optional<Norm> sub_norm;
};

// Where the tiles of a stack's experts go, if they are to be packed, and which are there.
struct ExpertTiles {
  uint8_t* tiles = nullptr;
  std::vector<uint8_t> packed;  // by expert; not bits, which threads would share
};

// The experts are the rows of the router; each weight holds their matrices below each other.
struct MixtureOfExperts {
  Linear router;
  int gate = -1;  // handles
  int up = -1;
  int down = -1;
  ExpertTiles gate_tiles, up_tiles, down_tiles;
  int top_k = 0;
  Activation activation = Activation::kSilu;
  bool renormalize = false;
  float scale = 1.0f;
  std::optional<FeedForward> shared;
  std::optional<Linear> shared_gate;  // one row
};

struct Layer {
  Attention mixer;
  std::variant<FeedForward, MixtureOfExperts> feed_forward;
  std::optional<Norm> mixer_norm, mixer_post_norm, feed_forward_norm, feed_forward_post_norm;
};

struct Model {
  std::vector<Matrix> weights;  // by handle; the bytes belong to the caller
  std::vector<Rope> ropes;
  std::vector<Layer> layers;
  int64_t width = 0;
  int embedding = -1;  // handle
  float embedding_scale = 1.0f;
  Norm output_norm;
  Linear head;
  float head_scale = 1.0f;
  float head_soft_cap = 0.0f;
};

}  // namespace trit
