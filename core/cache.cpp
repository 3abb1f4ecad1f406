#include "cache.h"

#include <cstring>
#include <new>
#include <set>
#include <string>
#include <utility>

namespace trit {
namespace {

// Pages are cut from slabs that the system can back with huge pages: decoding at depth reads the
// whole cache, and with small pages waits for their addresses. What is not used yet is not touched.
constexpr int64_t kSlab = 8 << 20;

}  // namespace

Cache::Cache(const Model& model, CacheType type, int64_t positions, int64_t pages)
    : type_(type), positions_(positions), most_pages_(pages) {
  for (const Layer& layer : model.layers) {
    const Attention& mixer = layer.mixer;
    const int64_t window = mixer.window < positions ? mixer.window : 0;
    size_t at = 0;
    while (at < groups_.size() && groups_[at].window != window) ++at;
    if (at == groups_.size()) groups_.emplace_back().window = window;
    Group& group = groups_[at];
    const int64_t bytes = cell_bytes(type, padded_dim(mixer));
    layers_.push_back({static_cast<int>(at), group.page_bytes, bytes, mixer.kv_heads});
    group.page_bytes += 2 * bytes * mixer.kv_heads;
  }
  if (groups_.empty()) groups_.emplace_back();
  for (size_t g = 1; g < groups_.size(); ++g) {
    const int64_t widest = groups_[counted_].window;
    if (widest > 0 && (groups_[g].window == 0 || groups_[g].window > widest)) counted_ = g;
  }
}

void Cache::add_slab(Group& group) {
  const int64_t page = group.page_bytes;
  const int64_t pages = page > 0 && page < kSlab ? kSlab / page : 1;
  group.slabs.push_back(std::make_unique<Arena>(pages * page));
  group.left = pages;
}

// Zeroed: a masked position is multiplied by 0, which only a finite value survives.
Cache::Page Cache::allocate(Group& group) {
  if (!group.free.empty()) {
    Page page = std::move(group.free.back());
    group.free.pop_back();
    // What a conversation that was forgotten left there is nobody's, nor any copy's of this page.
    if (page) std::memset(page.get(), 0, static_cast<size_t>(group.page_bytes));
    return page;
  }
  if (most_pages_ > 0 && &group == &groups_[counted_] && group.allocated >= most_pages_) {
    throw CacheFull("the cache has " + std::to_string(most_pages_ * kPage) +
                    " positions for all sequences, and all of them are held");
  }
  if (group.left == 0) add_slab(group);
  --group.left;
  uint8_t* memory = group.slabs.back()->take(group.page_bytes);
  if (memory) std::memset(memory, 0, static_cast<size_t>(group.page_bytes));
  Page page(memory, [](uint8_t*) {});  // the slab's
  ++group.allocated;
  return page;
}

// A page that nobody else holds is free.
void Cache::release(Group& group, Page& page) {
  if (page.use_count() == 1) group.free.push_back(std::move(page));
  page.reset();
}

void Cache::drop(int sequence, int64_t position) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) return;
  Sequence& entry = found->second;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t window = groups_[g].window;
    if (window == 0 || position < window) continue;
    const size_t seen = static_cast<size_t>((position - window + 1) / kPage);
    for (; entry.first[g] < seen && entry.first[g] < entry.pages[g].size(); ++entry.first[g]) {
      release(groups_[g], entry.pages[g][entry.first[g]]);
    }
  }
}

int64_t Cache::keeps_from(const Sequence& entry) const {
  int64_t from = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (entry.first[g] == 0) continue;
    const int64_t at = static_cast<int64_t>(entry.first[g]) * kPage + groups_[g].window - 1;
    from = at > from ? at : from;
  }
  return from;
}

int64_t Cache::keeps_from(int sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? 0 : keeps_from(found->second);
}

void Cache::refuse(int sequence, int64_t position) const {
  throw WindowDropped("sequence " + std::to_string(sequence) + " cannot go on at position " +
                      std::to_string(position) +
                      ": layers with a window have let go of what it would see; the first it can"
                      " go on at is " +
                      std::to_string(keeps_from(sequence)));
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
  if (position < keeps_from(sequence)) refuse(sequence, position);
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
    if (found == sequences_.end() || at >= pages(sequences[r])) {
      ++needed;
      continue;
    }
    const Page& page = found->second.pages[counted_][static_cast<size_t>(at)];
    if (++writers[page.get()] < page.use_count()) ++needed;
  }
  return needed;
}

void Cache::extend(int sequence, int64_t position) {
  require(sequence, position, length(sequence));
  Sequence& entry = sequences_[sequence];
  entry.pages.resize(groups_.size());
  entry.first.resize(groups_.size());
  const size_t at = static_cast<size_t>(position / kPage);
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<Page>& pages = entry.pages[g];
    if (at == pages.size()) {
      pages.push_back(allocate(groups_[g]));
    } else if (pages[at].use_count() > 1) {
      Page own = allocate(groups_[g]);
      std::memcpy(own.get(), pages[at].get(), static_cast<size_t>(groups_[g].page_bytes));
      pages[at] = std::move(own);
    }
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
  if (count > 0 && count < keeps_from(source)) refuse(source, count);
  remove(target, 0);
  if (count == 0) return;
  const Sequence& from = sequences_.find(source)->second;
  Sequence& to = sequences_[target];
  const int64_t shared = (count + kPage - 1) / kPage;
  for (const std::vector<Page>& pages : from.pages) {
    to.pages.emplace_back(pages.begin(), pages.begin() + shared);
  }
  to.first = from.first;
  to.length = count;
}

void Cache::restore(int sequence, int64_t length, const std::vector<int64_t>& first) {
  if (length < 1 || length > positions_) {
    throw std::out_of_range(std::to_string(length) + " positions for a context of " +
                            std::to_string(positions_));
  }
  if (sequences_.count(sequence) || first.size() != groups_.size())
    throw std::invalid_argument("a sequence that holds something, or pages of another model");
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int64_t window = groups_[g].window;
    const bool dropped = first[g] > 0 && window > 0 && first[g] <= length / kPage &&
                         first[g] * kPage + window - 1 <= length;
    if (first[g] != 0 && !dropped)
      throw std::invalid_argument("first page " + std::to_string(first[g]) + " of group " +
                                  std::to_string(g) + " of " + std::to_string(length) +
                                  " positions");
  }
  Sequence& entry = sequences_[sequence];
  try {
    entry.pages.resize(groups_.size());
    for (size_t g = 0; g < groups_.size(); ++g) {
      entry.first.push_back(static_cast<size_t>(first[g]));
      entry.pages[g].resize(entry.first[g]);
      for (int64_t page = first[g]; page * kPage < length; ++page)
        entry.pages[g].push_back(allocate(groups_[g]));
    }
  } catch (...) {
    cut(entry, 0);
    sequences_.erase(sequence);
    throw;
  }
  entry.length = length;
}

// What an extension that ran out of memory left behind goes too.
void Cache::cut(Sequence& entry, int64_t length) {
  entry.length = length;
  const size_t keep = static_cast<size_t>((length + kPage - 1) / kPage);
  for (size_t g = 0; g < groups_.size() && g < entry.pages.size(); ++g) {
    std::vector<Page>& pages = entry.pages[g];
    while (pages.size() > keep) {
      release(groups_[g], pages.back());
      pages.pop_back();
    }
  }
}

void Cache::remove(int sequence, int64_t from) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) return;
  Sequence& entry = found->second;
  if (from > entry.length) return;
  if (from > 0 && from < keeps_from(entry)) refuse(sequence, from);
  cut(entry, from < 0 ? 0 : from);
  if (entry.length == 0) sequences_.erase(found);
}

int64_t Cache::length(int sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? 0 : found->second.length;
}

int64_t Cache::bytes() const {
  int64_t bytes = 0;
  for (const Group& group : groups_) bytes += group.allocated * group.page_bytes;
  return bytes;
}

int64_t Cache::pages_used() const {
  const Group& group = groups_[counted_];
  return group.allocated - static_cast<int64_t>(group.free.size());
}

int64_t Cache::pages(int sequence) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end() ? 0 : static_cast<int64_t>(found->second.pages[0].size());
}

uint8_t* Cache::page(int sequence, int group, int64_t page) const {
  const Sequence& entry = sequences_.find(sequence)->second;
  return entry.pages[static_cast<size_t>(group)][static_cast<size_t>(page)].get();
}

int64_t Cache::first_page(int sequence, int group) const {
  const auto found = sequences_.find(sequence);
  return found == sequences_.end()
             ? 0
             : static_cast<int64_t>(found->second.first[static_cast<size_t>(group)]);
}

uint8_t* Cache::held_page(int sequence, int group, int64_t page, bool write) const {
  const bool known = group >= 0 && group < groups() && page >= first_page(sequence, group) &&
                     page < pages(sequence);
  if (!known) {
    throw std::out_of_range("sequence " + std::to_string(sequence) + " has no page " +
                            std::to_string(page) + " in group " + std::to_string(group));
  }
  const auto& held = sequences_.find(sequence)->second.pages[static_cast<size_t>(group)];
  const Page& found = held[static_cast<size_t>(page)];
  if (write && found.use_count() > 1) throw std::invalid_argument("a page that sequences share");
  return found.get();
}

int64_t Cache::keys(int layer, int head) const {
  const Place& place = layers_[static_cast<size_t>(layer)];
  return place.offset + head * place.head_bytes;
}

int64_t Cache::values(int layer, int head) const {
  return keys(layer, head) +
         layers_[static_cast<size_t>(layer)].heads * layers_[static_cast<size_t>(layer)].head_bytes;
}

}  // namespace trit
