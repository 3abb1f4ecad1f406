// A vocabulary: the texts of its tokens, looked up both ways.
//
// Input is the body of a GGUF string array (per string a little-endian uint64 length, then bytes),
// so a mapped file needs no conversion: 262,144 tokens index in tens of milliseconds. Everything is
// checked here, once; the tokenizer trusts it. Errors are std::invalid_argument whose message is
// "<GGUF key>: <problem>".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trit {

constexpr int32_t kNoToken = -1;
// Published vocabularies stay below 2 KiB (runs of spaces); a longer token is an attack.
constexpr size_t kMaxTokenBytes = 65536;

struct PackedStrings {
  const uint8_t* data = nullptr;
  size_t size = 0;   // bytes
  size_t count = 0;  // strings
};

// The strings as views into `packed`, which must hold exactly `count` of them.
std::vector<std::string_view> unpack_strings(const PackedStrings& packed, const char* key);

struct Vocabulary {
  // An empty token becomes "[EMPTY_<id>]", as in llama.cpp. Throws on no tokens, on a token above
  // kMaxTokenBytes and on two equal tokens.
  explicit Vocabulary(const PackedStrings& packed);

  size_t size() const { return ends_.size(); }
  size_t longest() const { return longest_; }
  std::string_view text(int32_t id) const {
    const size_t begin = id ? ends_[id - 1] : 0;
    return {bytes_.data() + begin, ends_[id] - begin};
  }
  int32_t find(std::string_view text) const;

 private:
  size_t slot(std::string_view text, uint32_t tag) const;

  std::string bytes_;           // all texts, one after the other
  std::vector<size_t> ends_;    // of each text in bytes_
  std::vector<int32_t> slots_;  // open addressing, a power of two, at most half full
  std::vector<uint32_t> tags_;  // upper half of the hash in each slot: most misses end here
  size_t longest_ = 0;
};

// A hash nobody can aim at: the seed differs from process to process.
uint64_t seeded_hash(const void* data, size_t size);

struct Merge {
  uint32_t rank;
  int32_t merged;
};

// The merges of a byte-pair vocabulary by the pair of tokens they join.
struct Merges {
  // Each string is "left right"; left, right and their concatenation must be tokens.
  Merges(const PackedStrings& packed, const Vocabulary& vocabulary);

  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Entry {
    int32_t left = kNoToken;
    int32_t right = kNoToken;
    Merge merge{};
  };
  size_t slot(int32_t left, int32_t right) const;

  std::vector<Entry> entries_;  // open addressing, a power of two, at most half full
};

}  // namespace trit
