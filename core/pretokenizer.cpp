#include "pretokenizer.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "unicode_table.h"

namespace trit {
namespace {

uint8_t classify(uint32_t point) {
  // Entries are (first << 8 | class), so the last entry at or below point << 8 | 0xff covers it.
  const uint32_t* end = std::end(unicode_ranges);
  return static_cast<uint8_t>(
      *(std::upper_bound(std::begin(unicode_ranges), end, point << 8 | 0xff) - 1));
}

struct Range {
  uint32_t first;
  uint32_t last;
};

// The cased letters DeepSeek's pre-tokenizer lists (tokenizer.json of deepseek-llm-7b-base).
constexpr Range kCasedLetters[] = {
    {0x41, 0x5a},       {0x61, 0x7a},       {0xb5, 0xb5},       {0xc0, 0xd6},
    {0xd8, 0xf6},       {0xf8, 0x1ba},      {0x1bc, 0x1bf},     {0x1c4, 0x293},
    {0x295, 0x2af},     {0x370, 0x373},     {0x376, 0x377},     {0x37b, 0x37d},
    {0x37f, 0x37f},     {0x386, 0x386},     {0x388, 0x38a},     {0x38c, 0x38c},
    {0x38e, 0x3a1},     {0x3a3, 0x3f5},     {0x3f7, 0x481},     {0x48a, 0x52f},
    {0x531, 0x556},     {0x10a0, 0x10c5},   {0x13a0, 0x13f5},   {0x13f8, 0x13fd},
    {0x1c90, 0x1cba},   {0x1cbd, 0x1cbf},   {0x1d00, 0x1d2b},   {0x1d6b, 0x1d77},
    {0x1d79, 0x1d9a},   {0x1e00, 0x1f15},   {0x1f18, 0x1f1d},   {0x1f20, 0x1f45},
    {0x1f48, 0x1f4d},   {0x1f50, 0x1f57},   {0x1f59, 0x1f59},   {0x1f5b, 0x1f5b},
    {0x1f5d, 0x1f5d},   {0x1f5f, 0x1f7d},   {0x1f80, 0x1fb4},   {0x1fb6, 0x1fbc},
    {0x1fbe, 0x1fbe},   {0x1fc2, 0x1fc4},   {0x1fc6, 0x1fcc},   {0x1fd0, 0x1fd3},
    {0x1fd6, 0x1fdb},   {0x1fe0, 0x1fec},   {0x1ff2, 0x1ff4},   {0x1ff6, 0x1ffc},
    {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210a, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211d},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},
    {0x212a, 0x212d},   {0x212f, 0x2134},   {0x2139, 0x2139},   {0x213c, 0x213f},
    {0x2145, 0x2149},   {0x214e, 0x214e},   {0x2183, 0x2184},   {0x2c00, 0x2c7b},
    {0x2c7e, 0x2ce4},   {0x2ceb, 0x2cee},   {0x2cf2, 0x2cf3},   {0xa640, 0xa66d},
    {0xa680, 0xa69b},   {0xa722, 0xa76f},   {0xa771, 0xa787},   {0xa78b, 0xa78e},
    {0xab70, 0xabbf},   {0xfb00, 0xfb06},   {0xfb13, 0xfb17},   {0xff21, 0xff3a},
    {0xff41, 0xff5a},   {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb},
    {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2}, {0x118a0, 0x118df}, {0x1e900, 0x1e943},
};
constexpr Range kDeepseekPunctuation[] = {
    {'!', '/'}, {':', '~'}, {0x2018, 0x201f}, {0x3000, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e},
};

template <size_t N>
bool in(const Range (&ranges)[N], uint32_t point) {
  const Range* after = std::upper_bound(std::begin(ranges), std::end(ranges), point,
                                        [](uint32_t p, const Range& r) { return p < r.first; });
  return after != ranges && point <= (after - 1)->last;
}

// One piece of the text. Past its end a point has no class and no value, so patterns stop there.
struct View {
  const Points& text;
  uint32_t end;

  uint32_t at(uint32_t i) const { return i < end ? text.point[i] : UINT32_MAX; }
  bool is(uint32_t i, int classes) const { return i < end && (text.classes[i] & classes); }
  // Inside the piece and of none of these classes.
  bool is_not(uint32_t i, int classes) const { return i < end && !(text.classes[i] & classes); }
  bool newline(uint32_t i) const { return at(i) == '\n' || at(i) == '\r'; }
  uint32_t skip(uint32_t i, int classes) const {
    while (is(i, classes)) ++i;
    return i;
  }
  // At most `count` of them, without looking at the rest of a long run.
  uint32_t skip(uint32_t i, int classes, uint32_t count) const {
    for (; count && is(i, classes); --count) ++i;
    return i;
  }
  uint32_t skip_not(uint32_t i, int classes) const {
    while (is_not(i, classes)) ++i;
    return i;
  }
};

// Cuts a piece at the matches of `match(view, position) -> end`, where end == position is no match;
// what lies between two matches is one piece. `match` must take O(1) when it fails.
template <class Match>
void cut(const Points& text, uint32_t begin, uint32_t end, Pieces& out, Match match) {
  const View view{text, end};
  uint32_t gap = begin;
  for (uint32_t position = begin; position < end;) {
    const uint32_t stop = match(view, position);
    if (stop == position) {
      ++position;
      continue;
    }
    if (gap < position) out.push_back(position);
    out.push_back(stop);
    position = gap = stop;
  }
  if (gap < end) out.push_back(end);
}

// 's 't 're 've 'm 'll 'd at `i`; any_case folds ASCII letters only, as llama.cpp does.
uint32_t contraction(const View& v, uint32_t i, bool any_case) {
  if (v.at(i) != '\'') return i;
  const uint32_t fold = any_case ? 0x20 : 0;
  auto letter = [&](uint32_t k) {
    const uint32_t p = v.at(k);
    return p >= 'A' && p <= 'Z' ? p | fold : p;
  };
  const uint32_t a = letter(i + 1), b = letter(i + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return i + 3;
  return i;
}

// \s+(?!\S)|\s+ : a run of spaces leaves its last one to the word that follows.
uint32_t spaces(const View& v, uint32_t i) {
  const uint32_t stop = v.skip(i, kSpace);
  return stop - i > 1 && stop < v.end ? stop - 1 : stop;
}

// \s*[\r\n]+|\s+(?!\S)|\s+
uint32_t spaces_or_lines(const View& v, uint32_t i) {
  uint32_t line = i;
  for (uint32_t k = i; v.is(k, kSpace); ++k)
    if (v.newline(k)) line = k + 1;
  return line > i ? line : spaces(v, i);
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
uint32_t gpt2_word(const View& v, uint32_t i) {
  if (const uint32_t stop = contraction(v, i, false); stop > i) return stop;
  const uint32_t k = i + (v.at(i) == ' ');
  if (v.is(k, kLetter)) return v.skip(k, kLetter);
  if (v.is(k, kNumber)) return v.skip(k, kNumber);
  if (v.is_not(k, kSpace | kLetter | kNumber)) return v.skip_not(k, kSpace | kLetter | kNumber);
  return spaces(v, i);
}

// (?i:'s|…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|…
// `letters` is \p{L}, or \p{L}\p{M} where marks belong to words.
template <int letters, uint32_t digits>
uint32_t llama3_word(const View& v, uint32_t i) {
  if (const uint32_t stop = contraction(v, i, true); stop > i) return stop;
  if (v.is_not(i, kNumber) && !v.newline(i)) {
    if (v.is(i, letters) || v.is(i + 1, letters)) return v.skip(i + 1, letters);
  }
  if (v.is(i, kNumber)) return v.skip(i, kNumber, digits);
  const uint32_t k = i + (v.at(i) == ' ');
  if (v.is_not(k, kSpace | letters | kNumber)) {
    uint32_t stop = v.skip_not(k, kSpace | letters | kNumber);
    while (v.newline(stop)) ++stop;
    return stop;
  }
  return spaces_or_lines(v, i);
}

bool lower_letter(const View& v, uint32_t i) {
  return v.is(i, kLetter) && !(v.at(i) >= 'A' && v.at(i) <= 'Z');
}

bool upper_letter(const View& v, uint32_t i) {
  return v.is(i, kLetter) && !(v.at(i) >= 'a' && v.at(i) <= 'z');
}

// upper* lower+ | upper+ lower*, where letters outside ASCII are both (llama.cpp's reading of
// \p{Lu} and \p{Ll}). The first alternative backs up to the last letter that is both.
uint32_t cased_letters(const View& v, uint32_t i) {
  uint32_t uppers = i;
  while (upper_letter(v, uppers)) ++uppers;
  uint32_t stop = uppers;
  while (lower_letter(v, stop)) ++stop;
  if (stop > uppers) return stop;
  for (uint32_t k = uppers; k > i; --k)
    if (lower_letter(v, k - 1)) return k;
  return uppers;
}

template <bool contractions, uint32_t digits>
uint32_t cased_word(const View& v, uint32_t i) {
  const uint32_t start = i + (v.is_not(i, kLetter | kNumber) && !v.newline(i));
  if (const uint32_t stop = cased_letters(v, start); stop > start)
    return contractions ? contraction(v, stop, true) : stop;
  if (v.is(i, kNumber)) return v.skip(i, kNumber, digits);
  const uint32_t k = i + (v.at(i) == ' ');
  if (v.is_not(k, kSpace | kLetter | kNumber)) {
    uint32_t stop = v.skip_not(k, kSpace | kLetter | kNumber);
    while (v.newline(stop) || v.at(stop) == '/') ++stop;
    return stop;
  }
  return spaces_or_lines(v, i);
}

bool ascii_letter(uint32_t p) { return (p | 0x20) >= 'a' && (p | 0x20) <= 'z'; }

// [ascii punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
// ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|…
uint32_t deepseek3_word(const View& v, uint32_t i) {
  if (v.at(i) < 128 && v.is(i, kPunctuation | kSymbol) && ascii_letter(v.at(i + 1))) {
    uint32_t stop = i + 1;
    while (ascii_letter(v.at(stop))) ++stop;
    return stop;
  }
  const bool prefix = v.is_not(i, kLetter | kPunctuation | kSymbol) && !v.newline(i);
  if (prefix && v.is(i + 1, kLetter | kMark)) return v.skip(i + 1, kLetter | kMark);
  if (v.is(i, kLetter | kMark)) return v.skip(i, kLetter | kMark);
  const uint32_t k = i + (v.at(i) == ' ');
  if (v.is(k, kPunctuation | kSymbol)) {
    uint32_t stop = v.skip(k, kPunctuation | kSymbol);
    while (v.newline(stop)) ++stop;
    return stop;
  }
  return spaces_or_lines(v, i);
}

// [0-9][0-9][0-9]
uint32_t ascii_triple(const View& v, uint32_t i) {
  for (uint32_t k = i; k < i + 3; ++k)
    if (v.at(k) < '0' || v.at(k) > '9') return i;
  return i + 3;
}

// \p{P} and the symbols a list of patterns adds to it
template <bool grave>
uint32_t punctuation(const View& v, uint32_t i) {
  auto wanted = [&](uint32_t k) {
    const uint32_t p = v.at(k);
    return v.is(k, kPunctuation) || p == '$' || p == '+' || p == '<' || p == '=' || p == '>' ||
           p == '^' || p == '~' || p == '|' || (grave && p == '`');
  };
  while (wanted(i)) ++i;
  return i;
}

// \s?class+
template <int classes>
uint32_t spaced_run(const View& v, uint32_t i) {
  const uint32_t k = i + v.is(i, kSpace);
  return v.is(k, classes) ? v.skip(k, classes) : i;
}

// \s?[ranges]+ ; a space is never in the ranges, not even U+3000: llama.cpp hides it from them.
template <const auto& ranges>
uint32_t spaced_ranges(const View& v, uint32_t i) {
  const uint32_t start = i + v.is(i, kSpace);
  uint32_t stop = start;
  while (v.is_not(stop, kSpace) && in(ranges, v.at(stop))) ++stop;
  return stop > start ? stop : i;
}

// [一-龥ࠀ-一가-퟿]+ without its spaces, for the same reason
uint32_t deepseek_cjk(const View& v, uint32_t i) {
  auto wanted = [](uint32_t p) {
    return (p >= 0x800 && p <= 0x9fa5) || (p >= 0xac00 && p <= 0xd7ff);
  };
  while (v.is_not(i, kSpace) && wanted(v.at(i))) ++i;
  return i;
}

// [一-龥぀-ゟ゠-ヿ]+
uint32_t deepseek3_cjk(const View& v, uint32_t i) {
  auto wanted = [](uint32_t p) {
    return (p >= 0x4e00 && p <= 0x9fa5) || (p >= 0x3040 && p <= 0x30ff);
  };
  while (wanted(v.at(i))) ++i;
  return i;
}

uint32_t number(const View& v, uint32_t i) { return i + v.is(i, kNumber); }
uint32_t number3(const View& v, uint32_t i) { return v.skip(i, kNumber, 3); }
uint32_t numbers(const View& v, uint32_t i) { return v.skip(i, kNumber); }
uint32_t line_break(const View& v, uint32_t i) { return i + v.newline(i); }

template <uint32_t (*match)(const View&, uint32_t)>
void split(const Points& text, uint32_t begin, uint32_t end, Pieces& out) {
  cut(text, begin, end, out, match);
}

// \s+$ ; not a match function, because failing on a run of spaces would cost its length each time.
void split_trailing_space(const Points& text, uint32_t begin, uint32_t end, Pieces& out) {
  uint32_t tail = end;
  while (tail > begin && (text.classes[tail - 1] & kSpace)) --tail;
  if (begin < tail) out.push_back(tail);
  if (tail < end) out.push_back(end);
}

struct Named {
  std::string_view name;
  Split split;
};

constexpr Named kSplits[] = {
    {"gpt2_words", split<gpt2_word>},
    {"llama3_words", split<llama3_word<kLetter, 3>>},
    {"qwen2_words", split<llama3_word<kLetter, 1>>},
    {"qwen35_words", split<llama3_word<kLetter | kMark, 1>>},
    {"tekken_words", split<cased_word<false, 1>>},
    {"gpt4o_words", split<cased_word<true, 3>>},
    {"deepseek3_words", split<deepseek3_word>},
    {"deepseek3_cjk", split<deepseek3_cjk>},
    {"deepseek_cjk", split<deepseek_cjk>},
    {"deepseek_letters", split<spaced_ranges<kCasedLetters>>},
    {"deepseek_punctuation", split<spaced_ranges<kDeepseekPunctuation>>},
    {"spaced_letters", split<spaced_run<kLetter>>},
    {"spaced_punctuation", split<spaced_run<kPunctuation>>},
    {"punctuation", split<punctuation<false>>},
    {"falcon_punctuation", split<punctuation<true>>},
    {"number", split<number>},
    {"number3", split<number3>},
    {"numbers", split<numbers>},
    {"ascii_triples", split<ascii_triple>},
    {"line_breaks", split<line_break>},
    {"trailing_space", split_trailing_space},
};

}  // namespace

Points decode_utf8(std::string_view text) {
  Points out;
  out.point.reserve(text.size());
  out.offset.reserve(text.size() + 1);
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = bytes[i];
    const size_t size = lead < 0x80 ? 1 : lead < 0xc0 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    uint32_t point = size == 1 ? lead : lead & (0x7f >> size);
    bool whole = size != 0 && lead < 0xf8 && i + size <= text.size();
    for (size_t k = 1; whole && k < size; ++k) {
      whole = (bytes[i + k] & 0xc0) == 0x80;
      point = point << 6 | (bytes[i + k] & 0x3f);
    }
    whole = whole && point < 0x110000;
    out.offset.push_back(static_cast<uint32_t>(i));
    out.point.push_back(whole ? point : 0xfffd);
    i += whole ? size : 1;
  }
  out.offset.push_back(static_cast<uint32_t>(text.size()));
  static const auto ascii = [] {
    std::array<uint8_t, 128> table{};
    for (uint32_t p = 0; p < 128; ++p) table[p] = classify(p);
    return table;
  }();
  out.classes.resize(out.point.size());
  for (size_t i = 0; i < out.point.size(); ++i)
    out.classes[i] = out.point[i] < 128 ? ascii[out.point[i]] : classify(out.point[i]);
  return out;
}

Split find_split(std::string_view name) {
  for (const Named& entry : kSplits)
    if (entry.name == name) return entry.split;
  return nullptr;
}

Pieces run_splits(const Points& text, const std::vector<Split>& splits) {
  Pieces pieces;
  if (!text.point.empty()) pieces.push_back(static_cast<uint32_t>(text.point.size()));
  Pieces next;
  for (const Split split : splits) {
    next.clear();
    uint32_t begin = 0;
    for (const uint32_t end : pieces) {
      split(text, begin, end, next);
      begin = end;
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace trit
