// Splits a text into the words that byte-pair merges never cross.
//
// A tokenizer names a list of splits; each one cuts the pieces the one before left, as a list of
// regular expressions would. They are written out by hand instead: a backtracking engine is not
// linear in its input, and a text is not ours to trust. Names and meaning follow llama.cpp's
// pre-tokenizers; character classes are those of Unicode 15.1 (unicode_table.h).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace trit {

enum CharClass : uint8_t {
  kLetter = 1,       // \p{L}
  kNumber = 2,       // \p{N}
  kMark = 4,         // \p{M}
  kPunctuation = 8,  // \p{P}
  kSymbol = 16,      // \p{S}
  kSpace = 32,       // \s
};

// A text taken apart: point[i] starts at byte offset[i]; offset has one entry more, the byte
// length.
struct Points {
  std::vector<uint32_t> point;
  std::vector<uint8_t> classes;
  std::vector<uint32_t> offset;
};

// Ends of consecutive pieces, counted in points; the last is the number of points.
using Pieces = std::vector<uint32_t>;
using Split = void (*)(const Points& text, uint32_t begin, uint32_t end, Pieces& out);

// Valid UTF-8 shorter than 4 GiB. Bytes that are not become U+FFFD, one each.
Points decode_utf8(std::string_view text);

// The split of this name, or nullptr.
Split find_split(std::string_view name);

// Runs every split over the pieces of the one before. Linear in the text for each.
Pieces run_splits(const Points& text, const std::vector<Split>& splits);

}  // namespace trit
