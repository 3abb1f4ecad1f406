// The KV cache: keys and values in pages of 64 positions, a list of pages per sequence. Sequences
// that begin alike share pages; whoever writes into a shared one copies it first, so no sequence
// ever sees what another wrote.
//
// Layers of one window form a group with pages of their own. What lies behind the window of all
// rows to come is let go of page by page, so the memory of such layers does not grow with the
// context. A sequence that has let go of something cannot go back to just anywhere: `keeps_from`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "arena.h"
#include "model.h"

namespace trit {

// All pages that the cache may have are held by sequences.
struct CacheFull : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A layer would have to see positions that were let go of.
struct WindowDropped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Cache {
 public:
  // Room for `positions` positions in each sequence, and for `pages` pages in all of them together
  // (0: no bound); pages are allocated when first written. Only the pages of the widest window are
  // counted: of the others there are never more.
  Cache(const Model& model, CacheType type, int64_t positions, int64_t pages);

  // Checks all rows of a batch before any is held. Throws std::out_of_range for a position beyond
  // the context or one that leaves a hole, WindowDropped for one before `keeps_from`,
  // std::invalid_argument when the rows of a sequence are not consecutive positions in order,
  // CacheFull when they need more pages than there are.
  void check(const int32_t* sequences, const int64_t* positions, int count) const;

  // Lets go of the pages that no row at `position` or later sees.
  void drop(int sequence, int64_t position);

  // Makes room for `position`, in a page of this sequence alone, and counts it as held; throws as
  // `check` does. Comes before every write.
  void extend(int sequence, int64_t position);

  // Makes `target` hold the first `count` positions of `source` in place of what it held. Costs no
  // page until one of them writes. Throws std::out_of_range if `source` holds fewer, WindowDropped
  // if a row after them would see what it let go of, std::invalid_argument if both are one.
  void fork(int source, int target, int64_t count);

  // Makes `sequence`, which holds nothing, hold `length` positions whose pages the caller writes:
  // in each group those from first[group] on, as `first_page` said of the sequence they are copied
  // from. Throws std::out_of_range for positions beyond the context, std::invalid_argument for what
  // no sequence can hold, CacheFull when there are too few pages.
  void restore(int sequence, int64_t length, const std::vector<int64_t>& first);

  // Forgets positions ≥ `from`; from 0 the sequence itself. Throws WindowDropped for one before
  // `keeps_from`, other than 0.
  void remove(int sequence, int64_t from);

  // The first position at which the sequence can go on: 0, or where the widest reach into what was
  // let go of ends.
  int64_t keeps_from(int sequence) const;

  int64_t length(int sequence) const;
  int64_t positions() const { return positions_; }
  int64_t bytes() const;  // allocated; a shared page counts once
  int64_t pages_used() const;

  CacheType type() const { return type_; }
  int groups() const { return static_cast<int>(groups_.size()); }
  int group(int layer) const { return layers_[static_cast<size_t>(layer)].group; }
  uint8_t* page(int sequence, int group, int64_t page) const;
  int64_t pages(int sequence) const;
  int64_t first_page(int sequence, int group) const;  // that was not let go of
  int64_t page_bytes(int group) const { return groups_[static_cast<size_t>(group)].page_bytes; }
  // A page that `sequence` holds, throws std::out_of_range for another; to be written into, it has
  // to be of this sequence alone.
  uint8_t* held_page(int sequence, int group, int64_t page, bool write) const;
  // Where a head's keys, or values, begin in a page of the layer's group, in bytes.
  int64_t keys(int layer, int head) const;
  int64_t values(int layer, int head) const;
  static int padded_dim(const Attention& mixer) {
    return (mixer.head_dim + kCacheBlock - 1) / kCacheBlock * kCacheBlock;
  }

 private:
  using Page = std::shared_ptr<uint8_t[]>;
  struct Group {
    int64_t window = 0;
    int64_t page_bytes = 0;
    int64_t allocated = 0;  // pages, in use or free
    std::vector<Page> free;
    std::vector<std::unique_ptr<Arena>> slabs;
    int64_t left = 0;  // pages of the last slab that were never used
  };
  struct Place {
    int group;
    int64_t offset;  // bytes from the start of a page
    int64_t head_bytes;
    int64_t heads;
  };
  struct Sequence {
    std::vector<std::vector<Page>> pages;  // [group][page]; null where it was let go of
    std::vector<size_t> first;             // [group], page that is not null
    int64_t length = 0;
  };

  Page allocate(Group& group);
  static void add_slab(Group& group);
  static void release(Group& group, Page& page);
  void cut(Sequence& entry, int64_t length);
  int64_t keeps_from(const Sequence& entry) const;
  int64_t pages_needed(const int32_t* sequences, const int64_t* positions, int count) const;
  void require(int sequence, int64_t position, int64_t held) const;
  [[noreturn]] void refuse(int sequence, int64_t position) const;

  CacheType type_;
  int64_t positions_;
  int64_t most_pages_;
  std::vector<Group> groups_;
  size_t counted_ = 0;  // the group with the widest window
  std::vector<Place> layers_;
  std::map<int, Sequence> sequences_;
};

}  // namespace trit
