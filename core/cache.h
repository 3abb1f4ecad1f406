// The KV cache: half-precision keys and values in pages of 64 positions, a list of pages per
// sequence.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "model.h"

namespace trit {

class Cache {
 public:
  // Room for `positions` positions in each sequence; pages are allocated when first written.
  Cache(const Model& model, int64_t positions);

  // Checks all rows of a batch before any is held. Throws std::out_of_range for a position beyond
  // the context or one that leaves a hole, std::invalid_argument when the rows of a sequence are
  // not consecutive positions in order.
  void check(const int32_t* sequences, const int64_t* positions, int count) const;

  // Makes room for `position` and counts it as held; throws as `check` does.
  void extend(int sequence, int64_t position);

  // Forgets positions ≥ `from`; from 0 the sequence itself.
  void remove(int sequence, int64_t from);

  int64_t length(int sequence) const;
  int64_t positions() const { return positions_; }
  int64_t bytes() const;  // allocated now
  int64_t page_bytes() const { return page_halves_ * 2; }

  uint16_t* keys(int sequence, int64_t page, int layer, int head);
  uint16_t* values(int sequence, int64_t page, int layer, int head);
  static int padded_dim(const Attention& mixer) { return (mixer.head_dim + 31) / 32 * 32; }

 private:
  struct FreeHalves {
    void operator()(uint16_t* page) const;
  };
  using Page = std::unique_ptr<uint16_t[], FreeHalves>;
  struct Sequence {
    std::vector<Page> pages;
    int64_t length = 0;
  };

  Page allocate();
  void require(int sequence, int64_t position, int64_t held) const;

  int64_t positions_;
  int64_t page_halves_ = 0;
  std::vector<int64_t> layer_offset_;  // halves from the start of a page
  std::vector<int64_t> head_halves_;   // keys (or values) of one head
  std::vector<int64_t> layer_heads_;
  std::map<int, Sequence> sequences_;
  std::vector<Page> free_;
};

}  // namespace trit
