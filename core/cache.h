// The KV cache: keys and values in pages of 64 positions, a list of pages per
// sequence. Sequences that begin alike share pages; whoever writes into a shared one copies it
// first, so no sequence ever sees what another wrote.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "model.h"

namespace trit {

// All pages that the cache may have are held by sequences.
struct CacheFull : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Cache {
 public:
  // Room for `positions` positions in each sequence, and for `pages` pages in all of them together
  // (0: no bound); pages are allocated when first written.
  Cache(const Model& model, CacheType type, int64_t positions, int64_t pages);

  // Checks all rows of a batch before any is held. Throws std::out_of_range for a position beyond
  // the context or one that leaves a hole, std::invalid_argument when the rows of a sequence are
  // not consecutive positions in order, CacheFull when they need more pages than there are.
  void check(const int32_t* sequences, const int64_t* positions, int count) const;

  // Makes room for `position`, in a page of this sequence alone, and counts it as held; throws as
  // `check` does. Comes before every write.
  void extend(int sequence, int64_t position);

  // Makes `target` hold the first `count` positions of `source` in place of what it held. Costs no
  // page until one of them writes. Throws std::out_of_range if `source` holds fewer,
  // std::invalid_argument if both are one.
  void fork(int source, int target, int64_t count);

  // Forgets positions ≥ `from`; from 0 the sequence itself.
  void remove(int sequence, int64_t from);

  int64_t length(int sequence) const;
  int64_t positions() const { return positions_; }
  int64_t bytes() const { return allocated_ * page_bytes(); }  // a shared page counts once
  int64_t pages_used() const { return allocated_ - static_cast<int64_t>(free_.size()); }
  int64_t page_bytes() const { return page_bytes_; }

  CacheType type() const { return type_; }
  uint8_t* page(int sequence, int64_t page) const;
  // Where a head's keys, or values, begin in a page, in bytes.
  int64_t keys(int layer, int head) const;
  int64_t values(int layer, int head) const;
  static int padded_dim(const Attention& mixer) {
    return (mixer.head_dim + kCacheBlock - 1) / kCacheBlock * kCacheBlock;
  }

 private:
  struct FreeBytes {
    void operator()(uint8_t* page) const;
  };
  using Page = std::shared_ptr<uint8_t[]>;
  struct Sequence {
    std::vector<Page> pages;
    int64_t length = 0;
  };

  Page allocate();
  void release(std::vector<Page>& pages, size_t keep);
  int64_t pages_needed(const int32_t* sequences, const int64_t* positions, int count) const;
  void require(int sequence, int64_t position, int64_t held) const;

  CacheType type_;
  int64_t positions_;
  int64_t most_pages_;
  int64_t allocated_ = 0;  // pages, in use or free
  int64_t page_bytes_ = 0;
  std::vector<int64_t> layer_offset_;  // bytes from the start of a page
  std::vector<int64_t> head_bytes_;    // keys (or values) of one head
  std::vector<int64_t> layer_heads_;
  std::map<int, Sequence> sequences_;
  std::vector<Page> free_;
};

}  // namespace trit
