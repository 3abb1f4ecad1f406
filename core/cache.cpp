#include "cache.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace trit {

void Cache::FreeHalves::operator()(uint16_t* page) const { std::free(page); }

Cache::Cache(const Model& model, int64_t positions) : positions_(positions) {
  for (const Layer& layer : model.layers) {
    const int64_t head = static_cast<int64_t>(padded_dim(layer.mixer)) * kPage;
    layer_offset_.push_back(page_halves_);
    head_halves_.push_back(head);
    layer_heads_.push_back(layer.mixer.kv_heads);
    page_halves_ += 2 * head * layer.mixer.kv_heads;
  }
}

// Zeroed: a masked position is multiplied by 0, which only a finite value survives.
Cache::Page Cache::allocate() {
  if (!free_.empty()) {
    Page page = std::move(free_.back());
    free_.pop_back();
    return page;
  }
  void* memory = std::calloc(static_cast<size_t>(page_halves_), sizeof(uint16_t));
  if (!memory) throw std::bad_alloc();
  return Page(static_cast<uint16_t*>(memory));
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
}

void Cache::extend(int sequence, int64_t position) {
  require(sequence, position, length(sequence));
  Sequence& entry = sequences_[sequence];
  if (position / kPage == static_cast<int64_t>(entry.pages.size()))
    entry.pages.push_back(allocate());
  if (position == entry.length) ++entry.length;
}

void Cache::remove(int sequence, int64_t from) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end() || from >= found->second.length) return;
  Sequence& entry = found->second;
  entry.length = from < 0 ? 0 : from;
  const size_t keep = static_cast<size_t>((entry.length + kPage - 1) / kPage);
  while (entry.pages.size() > keep) {
    free_.push_back(std::move(entry.pages.back()));
    entry.pages.pop_back();
  }
  if (entry.length == 0) sequences_.erase(found);
}

int64_t Cache::length(int sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? 0 : found->second.length;
}

int64_t Cache::bytes() const {
  int64_t pages = static_cast<int64_t>(free_.size());
  for (const auto& entry : sequences_) pages += static_cast<int64_t>(entry.second.pages.size());
  return pages * page_bytes();
}

uint16_t* Cache::keys(int sequence, int64_t page, int layer, int head) {
  uint16_t* base = sequences_.find(sequence)->second.pages[static_cast<size_t>(page)].get();
  const size_t at = static_cast<size_t>(layer);
  return base + layer_offset_[at] + head * head_halves_[at];
}

uint16_t* Cache::values(int sequence, int64_t page, int layer, int head) {
  const size_t at = static_cast<size_t>(layer);
  return keys(sequence, page, layer, head) + layer_heads_[at] * head_halves_[at];
}

}  // namespace trit
