#include "cache.h"

#include <sys/mman.h>
#include <cstdlib>
#include <cstring>
#include <new>
#include <set>
#include <string>
#include <utility>

namespace trit {

void Cache::FreeBytes::operator()(uint8_t* page) const { std::free(page); }

Cache::Cache(const Model& model, CacheType type, int64_t positions, int64_t pages)
    : type_(type), positions_(positions), most_pages_(pages) {
  for (const Layer& layer : model.layers) {
    const int64_t head = cell_bytes(type, padded_dim(layer.mixer));
    layer_offset_.push_back(page_bytes_);
    head_bytes_.push_back(head);
    layer_heads_.push_back(layer.mixer.kv_heads);
    page_bytes_ += 2 * head * layer.mixer.kv_heads;
  }
}

// Zeroed: a masked position is multiplied by 0, which only a finite value survives.
Cache::Page Cache::allocate() {
  if (!free_.empty()) {
    Page page = std::move(free_.back());
    free_.pop_back();
    return page;
  }
  if (most_pages_ > 0 && allocated_ >= most_pages_) {
    throw CacheFull("the cache has " + std::to_string(most_pages_ * kPage) +
                    " positions for all sequences, and all of them are held");
  }
  size_t rounded = (static_cast<size_t>(page_bytes_) + (2u<<20) - 1) >> 21 << 21;
  void* memory = std::aligned_alloc(2u << 20, rounded);
  if (!memory) throw std::bad_alloc();
  if (!getenv("NOHUGE")) madvise(memory, rounded, MADV_HUGEPAGE);
  std::memset(memory, 0, rounded);
  Page page(static_cast<uint8_t*>(memory), FreeBytes());
  ++allocated_;
  return page;
}

// Lets go of the pages from `keep` on; those nobody else holds are free.
void Cache::release(std::vector<Page>& pages, size_t keep) {
  while (pages.size() > keep) {
    if (pages.back().use_count() == 1) free_.push_back(std::move(pages.back()));
    pages.pop_back();
  }
}

void Cache::require(int sequence, int64_t position, int64_t held) const {
  if (position < 0 || position >= positions_) {
    throw std::out_of_range("position " + std::to_string(position) + " is beyond the context of " +
                            std::to_string(positions_));
  }
  if (position > held) {
    throw std::out_of_range("position " + std::to_string(position) + " of sequence " +
                            std::to_string(sequence) + " leaves a hole: it holds " +
                            std::to_string(held));
  }
}

// Out of order, what a row sees would depend on where a batch is cut; twice the same position, on
// which thread comes last.
void Cache::check(const int32_t* sequences, const int64_t* positions, int count) const {
  std::map<int, int64_t> next;
  for (int r = 0; r < count; ++r) {
    const auto [found, first] = next.try_emplace(sequences[r], positions[r]);
    if (!first && positions[r] < found->second) {
      throw std::invalid_argument("position " + std::to_string(positions[r]) + " of sequence " +
                                  std::to_string(sequences[r]) +
                                  ": rows of a sequence come in the order of their positions");
    }
    require(sequences[r], positions[r], first ? length(sequences[r]) : found->second);
    found->second = positions[r] + 1;
  }
  if (most_pages_ == 0) return;
  const int64_t needed = pages_needed(sequences, positions, count);
  if (needed > most_pages_ - pages_used()) {
    throw CacheFull("the cache has " + std::to_string(most_pages_ * kPage) +
                    " positions for all sequences; this batch needs " +
                    std::to_string(needed * kPage) + " more, free are " +
                    std::to_string((most_pages_ - pages_used()) * kPage));
  }
}

// New pages, and copies of shared ones: the last holder to write keeps the original.
int64_t Cache::pages_needed(const int32_t* sequences, const int64_t* positions, int count) const {
  std::set<std::pair<int, int64_t>> written;
  std::map<const uint8_t*, int64_t> writers;
  int64_t needed = 0;
  for (int r = 0; r < count; ++r) {
    const int64_t at = positions[r] / kPage;
    if (!written.emplace(sequences[r], at).second) continue;
    const auto found = sequences_.find(sequences[r]);
    const bool held =
        found != sequences_.end() && at < static_cast<int64_t>(found->second.pages.size());
    if (!held) {
      ++needed;
      continue;
    }
    const Page& page = found->second.pages[static_cast<size_t>(at)];
    if (++writers[page.get()] < page.use_count()) ++needed;
  }
  return needed;
}

void Cache::extend(int sequence, int64_t position) {
  require(sequence, position, length(sequence));
  Sequence& entry = sequences_[sequence];
  const size_t at = static_cast<size_t>(position / kPage);
  if (at == entry.pages.size()) {
    entry.pages.push_back(allocate());
  } else if (entry.pages[at].use_count() > 1) {
    Page own = allocate();
    std::memcpy(own.get(), entry.pages[at].get(), static_cast<size_t>(page_bytes()));
    entry.pages[at] = std::move(own);
  }
  if (position == entry.length) ++entry.length;
}

void Cache::fork(int source, int target, int64_t count) {
  if (source == target) throw std::invalid_argument("a sequence cannot be forked onto itself");
  if (count < 0 || count > length(source)) {
    throw std::out_of_range("sequence " + std::to_string(source) + " holds " +
                            std::to_string(length(source)) + " positions, not " +
                            std::to_string(count));
  }
  remove(target, 0);
  if (count == 0) return;
  const std::vector<Page>& pages = sequences_.find(source)->second.pages;
  const int64_t shared = (count + kPage - 1) / kPage;
  sequences_[target] = {{pages.begin(), pages.begin() + shared}, count};
}

void Cache::remove(int sequence, int64_t from) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end() || from >= found->second.length) return;
  Sequence& entry = found->second;
  entry.length = from < 0 ? 0 : from;
  release(entry.pages, static_cast<size_t>((entry.length + kPage - 1) / kPage));
  if (entry.length == 0) sequences_.erase(found);
}

int64_t Cache::length(int sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? 0 : found->second.length;
}

uint8_t* Cache::page(int sequence, int64_t page) const {
  return sequences_.find(sequence)->second.pages[static_cast<size_t>(page)].get();
}

int64_t Cache::keys(int layer, int head) const {
  const size_t at = static_cast<size_t>(layer);
  return layer_offset_[at] + head * head_bytes_[at];
}

int64_t Cache::values(int layer, int head) const {
  return keys(layer, head) +
         layer_heads_[static_cast<size_t>(layer)] * head_bytes_[static_cast<size_t>(layer)];
}

}  // namespace trit
