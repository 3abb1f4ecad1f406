#include "vocabulary.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <stdexcept>

namespace trit {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kMerges = "tokenizer.ggml.merges";

[[noreturn]] void fail(const char* key, const std::string& problem) {
  throw std::invalid_argument(std::string(key) + ": " + problem);
}

uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t seed() {
  static const uint64_t value = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32 | device()) | 1;
  }();
  return value;
}

// At most `count` entries of a hash table that is at most half full.
size_t table_size(size_t count) { return std::bit_ceil(std::max<size_t>(2 * count, 16)); }

}  // namespace

uint64_t seeded_hash(const void* data, size_t size) {
  // Multiply and fold, eight bytes at a time (the construction of wyhash).
  const auto* bytes = static_cast<const uint8_t*>(data);
  uint64_t state = mix(seed() ^ size, 0x9e3779b97f4a7c15);
  for (; size >= 8; bytes += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    state = mix(state ^ word, 0xbf58476d1ce4e5b9 ^ seed());
  }
  uint64_t word = 0;
  std::memcpy(&word, bytes, size);
  return mix(state ^ word, 0x94d049bb133111eb ^ seed());
}

std::vector<std::string_view> unpack_strings(const PackedStrings& packed, const char* key) {
  // A string takes at least its length field, so a hostile count cannot make us allocate.
  if (packed.count > packed.size / 8)
    fail(key, std::to_string(packed.count) + " strings cannot fit in " +
                  std::to_string(packed.size) + " bytes");
  std::vector<std::string_view> out;
  out.reserve(packed.count);
  size_t at = 0;
  for (size_t i = 0; i < packed.count; ++i) {
    uint64_t length = 0;
    if (packed.size - at < 8) fail(key, "string " + std::to_string(i) + " is cut off");
    for (int k = 0; k < 8; ++k) length |= static_cast<uint64_t>(packed.data[at + k]) << (8 * k);
    at += 8;
    if (length > packed.size - at) fail(key, "string " + std::to_string(i) + " is cut off");
    out.emplace_back(reinterpret_cast<const char*>(packed.data + at), length);
    at += length;
  }
  if (at != packed.size)
    fail(key, std::to_string(packed.size - at) + " bytes after the last string");
  return out;
}

Vocabulary::Vocabulary(const PackedStrings& packed) {
  const auto texts = unpack_strings(packed, kTokens);
  if (texts.empty()) fail(kTokens, "the vocabulary has no tokens");
  if (texts.size() > INT32_MAX) fail(kTokens, "more than 2^31 - 1 tokens");
  bytes_.reserve(packed.size);
  ends_.reserve(texts.size());
  slots_.assign(table_size(texts.size()), kNoToken);
  tags_.assign(slots_.size(), 0);
  for (const std::string_view text : texts) {
    const auto id = static_cast<int32_t>(ends_.size());
    if (text.size() > kMaxTokenBytes)
      fail(kTokens, "token " + std::to_string(id) + " has " + std::to_string(text.size()) +
                        " bytes; at most " + std::to_string(kMaxTokenBytes) + " are allowed");
    const std::string empty = text.empty() ? "[EMPTY_" + std::to_string(id) + "]" : "";
    const std::string_view name = text.empty() ? std::string_view(empty) : text;
    const auto tag = static_cast<uint32_t>(seeded_hash(name.data(), name.size()) >> 32);
    const size_t place = slot(name, tag);
    if (slots_[place] != kNoToken)
      fail(kTokens, "tokens " + std::to_string(slots_[place]) + " and " + std::to_string(id) +
                        " are the same text; each token must be unique");
    bytes_.append(name);
    ends_.push_back(bytes_.size());
    slots_[place] = id;
    tags_[place] = tag;
    longest_ = std::max(longest_, name.size());
  }
}

// The slot that holds `text`, or the empty one where it belongs.
size_t Vocabulary::slot(std::string_view text, uint32_t tag) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = tag & mask;; i = (i + 1) & mask)
    if (slots_[i] == kNoToken || (tags_[i] == tag && this->text(slots_[i]) == text)) return i;
}

int32_t Vocabulary::find(std::string_view text) const {
  if (text.size() > longest_) return kNoToken;
  return slots_[slot(text, static_cast<uint32_t>(seeded_hash(text.data(), text.size()) >> 32))];
}

Merges::Merges(const PackedStrings& packed, const Vocabulary& vocabulary) {
  const auto texts = unpack_strings(packed, kMerges);
  if (texts.size() > UINT32_MAX) fail(kMerges, "more than 2^32 - 1 merges");
  entries_.resize(table_size(texts.size()));
  std::string joined;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string_view text = texts[i];
    const std::string name = "merge " + std::to_string(i);
    // A left part may begin with a space only in formats that are not byte-level; llama.cpp looks
    // for the separator from the second byte on.
    const size_t space = text.find(' ', 1);
    if (space == std::string_view::npos) fail(kMerges, name + " is not two tokens and a space");
    const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
    joined.assign(left).append(right);
    Entry entry{vocabulary.find(left), vocabulary.find(right), {}};
    entry.merge = {static_cast<uint32_t>(i), vocabulary.find(joined)};
    if (entry.left == kNoToken || entry.right == kNoToken || entry.merge.merged == kNoToken)
      fail(kMerges, name + " names a token that is not in the vocabulary");
    Entry& place = entries_[slot(entry.left, entry.right)];
    if (place.left == kNoToken) place = entry;  // of equal merges the first counts
  }
}

size_t Merges::slot(int32_t left, int32_t right) const {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  const size_t mask = entries_.size() - 1;
  for (size_t i = mix(key ^ seed(), 0x9e3779b97f4a7c15 ^ seed()) & mask;; i = (i + 1) & mask) {
    const Entry& entry = entries_[i];
    if (entry.left == kNoToken || (entry.left == left && entry.right == right)) return i;
  }
}

const Merge* Merges::find(int32_t left, int32_t right) const {
  const Entry& entry = entries_[slot(left, right)];
  return entry.left == kNoToken ? nullptr : &entry.merge;
}

}  // namespace trit
