// Text to token ids and back: byte-pair merges (GPT-2's kind) and SentencePiece's unigram-scored
// bigrams (Llama's kind), with ids equal to llama.cpp's.
//
// Built from the arrays of a GGUF file as they lie in the mapping. Encoding is O(n log n) in the
// text, whatever the vocabulary. Adding BOS and EOS, and knowing which tokens are special, is the
// caller's business. A built tokenizer is immutable but for `set_specials`, and safe to share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pretokenizer.h"
#include "vocabulary.h"

namespace trit {

// Values of tokenizer.ggml.token_type.
enum TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// How a special token is matched in a text, before anything else is.
enum SpecialFlags : uint8_t {
  kParsedOnly = 1,  // control and unknown: matched only where parse_special, hidden by skip_special
  kStripRight = 2,  // swallows the spaces after it
  kStripLeft = 4,   // swallows the spaces before it
  kTurnMark = 8,    // what templates build a conversation of: see `mark_starts`
};

struct TokenizerSource {
  PackedStrings tokens;
  const int32_t* types = nullptr;  // one TokenType per token; null: all normal
  const float* scores = nullptr;   // one per token: SentencePiece. Null: byte-pair, needs merges.
  PackedStrings merges;
  std::vector<std::string> splits;  // names of pretokenizer.h, byte-pair only
  bool ignore_merges = false;       // a word that is a token is taken whole, byte-pair only
  bool space_prefix = false;  // a space before the text and after specials, SentencePiece only
};

struct Special {
  int32_t id;
  uint8_t flags;  // SpecialFlags
};

class Tokenizer {
 public:
  // Throws std::invalid_argument ("<key>: <problem>") for anything inconsistent.
  explicit Tokenizer(const TokenizerSource& source);

  // Replaces the special tokens. Ids must be in the vocabulary.
  void set_specials(const std::vector<Special>& specials);

  // `text` is UTF-8, below 1 GiB. A byte no token covers is dropped (byte-pair, as in llama.cpp) or
  // becomes the token kUnknown, where there is one (SentencePiece). `breaks`: ascending byte
  // offsets that no special token may lie across.
  std::vector<int32_t> encode(std::string_view text, bool parse_special,
                              const std::vector<int64_t>& breaks = {}) const;

  // Where the text of a special token with kTurnMark begins, in bytes, ascending. A break behind
  // the first byte of each leaves `encode` none of them.
  std::vector<int64_t> mark_starts(std::string_view text) const;

  // The bytes of the tokens. `skip_special` leaves out control and unknown tokens; `strip_prefix`
  // takes back the space that space_prefix added. Throws std::out_of_range for an id there is not.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special, bool strip_prefix) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Segment {  // a special token, or (id == kNoToken) text[begin, end)
    int32_t id;
    uint32_t begin;
    uint32_t end;
  };

  int32_t longest_special(std::string_view text, size_t at, size_t limit, bool parse,
                          uint8_t wanted = 0) const;
  std::vector<Segment> partition(std::string_view text, bool parse_special,
                                 const std::vector<int64_t>& breaks) const;
  void encode_pairs(std::string_view text, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;
  void encode_pieces(std::string_view text, std::vector<int32_t>& out) const;
  void append_piece(int32_t id, std::string& out) const;

  Vocabulary vocabulary_;
  std::vector<int32_t> types_;
  std::vector<float> scores_;       // empty: byte-pair
  std::unique_ptr<Merges> merges_;  // null: SentencePiece
  std::vector<Split> splits_;
  bool ignore_merges_;
  bool space_prefix_;
  int32_t unknown_ = kNoToken;
  std::array<int32_t, 256> byte_token_{};  // token of each single byte
  std::vector<int32_t> specials_;          // ids, sorted by text
  std::vector<uint8_t> special_flags_;     // by id; 0xff: not special
  std::array<uint32_t, 257> first_{};  // specials_ whose first byte is b: [first_[b], first_[b+1])
};

}  // namespace trit
