#include "tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <queue>
#include <stdexcept>

namespace trit {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, SentencePiece's visible space
constexpr uint8_t kNotSpecial = 0xff;
constexpr size_t kMaxTextBytes = size_t{1} << 30;

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards.
const std::array<std::string, 256>& byte_letters() {
  static const auto table = [] {
    std::array<std::string, 256> out;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      const uint32_t point = printable ? byte : next++;
      if (point < 0x80) {
        out[byte].push_back(static_cast<char>(point));
      } else {
        out[byte].push_back(static_cast<char>(0xc0 | point >> 6));
        out[byte].push_back(static_cast<char>(0x80 | (point & 0x3f)));
      }
    }
    return out;
  }();
  return table;
}

// The byte each point below U+0144 stands for, or -1.
const std::array<int16_t, 0x144>& letter_bytes() {
  static const auto table = [] {
    std::array<int16_t, 0x144> out;
    out.fill(-1);
    for (int byte = 0; byte < 256; ++byte)
      out[decode_utf8(byte_letters()[byte]).point[0]] = static_cast<int16_t>(byte);
    return out;
  }();
  return table;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The value of "<0xHH>", or -1.
int byte_value(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  const int high = hex_digit(text[3]), low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

bool ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// A chain of neighbouring symbols of a word or a text, and two of them that may join.
struct Symbol {
  uint32_t begin;
  uint32_t size;  // bytes; 0: joined into its left neighbour
  int32_t previous;
  int32_t next;
  int32_t id;
};

template <class Priority>
struct Candidate {
  Priority priority;
  int32_t left;
  int32_t right;
  uint32_t size;  // bytes of both when queued: another size now means one of them has changed
  int32_t id;

  // std::priority_queue pops the greatest: the best priority, then the leftmost.
  bool operator<(const Candidate& other) const {
    return priority != other.priority ? priority < other.priority : left > other.left;
  }
};

std::vector<Symbol> chain(std::vector<Symbol> symbols) {
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  return symbols;
}

// Joins neighbours, best first, until `pair(left, right, candidate)` finds none that may.
template <class Priority, class Pair>
void join(std::vector<Symbol>& symbols, Pair pair) {
  std::priority_queue<Candidate<Priority>> queue;
  auto offer = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    Candidate<Priority> candidate{{}, left, right, symbols[left].size + symbols[right].size, 0};
    if (pair(symbols[left], symbols[right], candidate)) queue.push(candidate);
  };
  for (size_t i = 1; i < symbols.size(); ++i)
    offer(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
  while (!queue.empty()) {
    const auto best = queue.top();
    queue.pop();
    Symbol &left = symbols[best.left], &right = symbols[best.right];
    if (!left.size || !right.size || left.size + right.size != best.size) continue;
    left.size = best.size;
    left.id = best.id;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    offer(left.previous, best.left);
    offer(best.left, left.next);
  }
}

}  // namespace

Tokenizer::Tokenizer(const TokenizerSource& source)
    : vocabulary_(source.tokens),
      ignore_merges_(source.ignore_merges),
      space_prefix_(source.space_prefix) {
  const size_t count = vocabulary_.size();
  types_.assign(count, kNormal);
  if (source.types) std::copy_n(source.types, count, types_.begin());
  for (size_t id = 0; id < count; ++id) {
    if (types_[id] == kUnknown && unknown_ == kNoToken) unknown_ = static_cast<int32_t>(id);
    if (types_[id] == kByte && byte_value(vocabulary_.text(static_cast<int32_t>(id))) < 0)
      fail("tokenizer.ggml.tokens: token " + std::to_string(id) +
           " has the type of a byte; expected a text from <0x00> to <0xFF>");
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!source.scores) {
      byte_token_[byte] = vocabulary_.find(byte_letters()[byte]);
      continue;
    }
    const char* hex = "0123456789ABCDEF";
    const char text[] = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'};
    const char raw = static_cast<char>(byte);
    byte_token_[byte] = vocabulary_.find({text, 6});
    if (byte_token_[byte] == kNoToken) byte_token_[byte] = vocabulary_.find({&raw, 1});
    if (byte_token_[byte] == kNoToken) byte_token_[byte] = unknown_;
  }
  if (source.scores) {
    scores_.assign(source.scores, source.scores + count);
    for (size_t id = 0; id < count; ++id)
      if (std::isnan(scores_[id]))
        fail("tokenizer.ggml.scores: the score of token " + std::to_string(id) +
             " is not a number");
  } else {
    merges_ = std::make_unique<Merges>(source.merges, vocabulary_);
  }
  for (const std::string& name : source.splits) {
    const Split split = find_split(name);
    if (!split) fail("tokenizer.ggml.pre: there is no split named " + name);
    splits_.push_back(split);
  }
  set_specials({});
}

void Tokenizer::set_specials(const std::vector<Special>& specials) {
  special_flags_.assign(vocabulary_.size(), kNotSpecial);
  specials_.clear();
  for (const Special& special : specials) {
    if (special.id < 0 || static_cast<size_t>(special.id) >= vocabulary_.size())
      throw std::out_of_range("special token " + std::to_string(special.id));
    if (special_flags_[special.id] == kNotSpecial) specials_.push_back(special.id);
    special_flags_[special.id] = special.flags;
  }
  std::sort(specials_.begin(), specials_.end(), [&](int32_t a, int32_t b) {
    return vocabulary_.text(a) < vocabulary_.text(b);  // char_traits<char> compares unsigned bytes
  });
  first_.fill(0);
  for (const int32_t id : specials_) ++first_[static_cast<uint8_t>(vocabulary_.text(id)[0]) + 1];
  for (int byte = 0; byte < 256; ++byte) first_[byte + 1] += first_[byte];
}

// The longest special token below `limit` bytes that starts at text[at] and has all `wanted` flags.
// Narrows the sorted list one byte at a time, so it ends as soon as the text leaves every special
// token.
int32_t Tokenizer::longest_special(std::string_view text, size_t at, size_t limit, bool parse,
                                   uint8_t wanted) const {
  const auto byte = static_cast<uint8_t>(text[at]);
  auto low = specials_.begin() + first_[byte], high = specials_.begin() + first_[byte + 1];
  int32_t best = kNoToken;
  for (size_t depth = 1; low != high; ++depth) {
    const std::string_view shortest = vocabulary_.text(*low);
    if (shortest.size() == depth) {
      if (depth >= limit) break;
      const uint8_t flags = special_flags_[*low];
      if ((parse || !(flags & kParsedOnly)) && (flags & wanted) == wanted) best = *low;
      ++low;
    }
    if (at + depth >= text.size()) break;
    const auto next = static_cast<uint8_t>(text[at + depth]);
    auto below = [&](int32_t id, int limit_byte) {
      return static_cast<uint8_t>(vocabulary_.text(id)[depth]) < limit_byte;
    };
    low = std::lower_bound(low, high, next, below);
    high = std::lower_bound(low, high, next + 1, below);
  }
  return best;
}

// Cuts out the special tokens: the longest first wherever it stands, then the lowest id, then the
// leftmost, as searching the text for one token after the other would.
std::vector<Tokenizer::Segment> Tokenizer::partition(std::string_view text, bool parse,
                                                     const std::vector<int64_t>& breaks) const {
  struct Match {
    size_t size;
    int32_t id;
    uint32_t at;
    bool operator<(const Match& other) const {
      if (size != other.size) return size < other.size;
      return id != other.id ? id > other.id : at > other.at;
    }
  };
  std::priority_queue<Match> queue;
  auto offer = [&](size_t at, size_t limit) {
    const int32_t id = longest_special(text, at, limit, parse);
    if (id != kNoToken) queue.push({vocabulary_.text(id).size(), id, static_cast<uint32_t>(at)});
  };
  auto next_break = breaks.begin();
  for (size_t at = 0; at < text.size(); ++at) {
    while (next_break != breaks.end() && *next_break <= static_cast<int64_t>(at)) ++next_break;
    const size_t limit =
        next_break == breaks.end() ? SIZE_MAX : static_cast<size_t>(*next_break) - at + 1;
    const auto byte = static_cast<uint8_t>(text[at]);
    if (first_[byte] != first_[byte + 1]) offer(at, limit);
  }
  const auto size = static_cast<uint32_t>(text.size());
  if (queue.empty())
    return size ? std::vector<Segment>{{kNoToken, 0, size}} : std::vector<Segment>{};

  std::string taken(text.size(), '\0');
  std::vector<Segment> found;
  while (!queue.empty()) {
    const Match match = queue.top();
    queue.pop();
    if (taken[match.at]) continue;
    if (std::memchr(taken.data() + match.at, 1, match.size)) {
      offer(match.at, match.size);  // a shorter one may still fit here
      continue;
    }
    size_t begin = match.at, end = match.at + match.size;
    found.push_back({match.id, match.at, static_cast<uint32_t>(end)});
    const uint8_t flags = special_flags_[match.id];
    while ((flags & kStripLeft) && begin > 0 && !taken[begin - 1] && ascii_space(text[begin - 1]))
      --begin;
    while ((flags & kStripRight) && end < text.size() && !taken[end] && ascii_space(text[end]))
      ++end;
    std::memset(taken.data() + begin, 1, end - begin);
  }
  std::sort(found.begin(), found.end(),
            [](const Segment& a, const Segment& b) { return a.begin < b.begin; });

  std::vector<Segment> segments;
  uint32_t at = 0;
  auto rest_until = [&](uint32_t stop) {  // what no token and no stripping has taken
    while (at < stop && taken[at]) ++at;
    uint32_t end = stop;
    while (end > at && taken[end - 1]) --end;
    if (at < end) segments.push_back({kNoToken, at, end});
  };
  for (const Segment& token : found) {
    rest_until(token.begin);
    segments.push_back(token);
    at = token.end;
  }
  rest_until(size);
  return segments;
}

std::vector<int64_t> Tokenizer::mark_starts(std::string_view text) const {
  std::vector<int64_t> starts;
  for (size_t at = 0; at < text.size(); ++at)
    if (longest_special(text, at, SIZE_MAX, true, kTurnMark) != kNoToken)
      starts.push_back(static_cast<int64_t>(at));
  return starts;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special,
                                       const std::vector<int64_t>& breaks) const {
  if (text.size() > kMaxTextBytes) throw std::length_error("a text of more than 1 GiB");
  std::vector<int32_t> out;
  bool after_special = true;
  for (const Segment& segment : partition(text, parse_special, breaks)) {
    if (segment.id != kNoToken) {
      out.push_back(segment.id);
      after_special = true;
      continue;
    }
    const std::string_view part = text.substr(segment.begin, segment.end - segment.begin);
    if (merges_) {
      encode_pairs(part, out);
    } else {
      std::string marked;
      if (space_prefix_ && after_special) marked = kSpaceMark;
      for (const char c : part) c == ' ' ? marked.append(kSpaceMark) : marked.append(1, c);
      encode_pieces(marked, out);
    }
    after_special = false;
  }
  return out;
}

void Tokenizer::encode_pairs(std::string_view text, std::vector<int32_t>& out) const {
  const Points points = decode_utf8(text);
  uint32_t begin = 0;
  for (const uint32_t end : run_splits(points, splits_)) {
    const uint32_t from = points.offset[begin];
    encode_word(text.substr(from, points.offset[end] - from), out);
    begin = end;
  }
}

void Tokenizer::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    std::string letters;
    for (const char c : word) letters += byte_letters()[static_cast<uint8_t>(c)];
    if (const int32_t id = vocabulary_.find(letters); id != kNoToken) return out.push_back(id);
  }
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (uint32_t i = 0; i < word.size(); ++i)
    symbols.push_back({i, 1, 0, 0, byte_token_[static_cast<uint8_t>(word[i])]});
  symbols = chain(std::move(symbols));
  join<int64_t>(symbols, [&](const Symbol& left, const Symbol& right, auto& candidate) {
    const Merge* merge = left.id == kNoToken ? nullptr : merges_->find(left.id, right.id);
    if (!merge) return false;
    candidate.priority = -static_cast<int64_t>(merge->rank);
    candidate.id = merge->merged;
    return true;
  });
  for (const Symbol& symbol : symbols)
    if (symbol.size && symbol.id != kNoToken) out.push_back(symbol.id);
}

void Tokenizer::encode_pieces(std::string_view text, std::vector<int32_t>& out) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (uint32_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const uint32_t wanted = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    const auto size = std::min(wanted, static_cast<uint32_t>(text.size()) - i);
    symbols.push_back({i, size, 0, 0, vocabulary_.find(text.substr(i, size))});
    i += size;
  }
  symbols = chain(std::move(symbols));
  join<float>(symbols, [&](const Symbol& left, const Symbol& right, auto& candidate) {
    candidate.id = vocabulary_.find(text.substr(left.begin, left.size + right.size));
    if (candidate.id == kNoToken) return false;
    candidate.priority = scores_[candidate.id];
    return true;
  });
  for (const Symbol& symbol : symbols) {
    if (!symbol.size) continue;
    if (symbol.id != kNoToken) {
      out.push_back(symbol.id);
      continue;
    }
    for (uint32_t i = 0; i < symbol.size; ++i) {
      const int32_t id = byte_token_[static_cast<uint8_t>(text[symbol.begin + i])];
      if (id != kNoToken) out.push_back(id);
    }
  }
}

void Tokenizer::append_piece(int32_t id, std::string& out) const {
  const std::string_view text = vocabulary_.text(id);
  if (types_[id] == kByte) {
    out.push_back(static_cast<char>(byte_value(text)));
  } else if (special_flags_[id] != kNotSpecial) {
    out.append(text);
  } else if (merges_) {
    const Points points = decode_utf8(text);
    for (size_t i = 0; i < points.point.size(); ++i) {
      const uint32_t point = points.point[i];
      const int byte = point < letter_bytes().size() ? letter_bytes()[point] : -1;
      // A letter outside the alphabet can only come from a token added by hand: it is itself.
      if (byte >= 0)
        out.push_back(static_cast<char>(byte));
      else
        out.append(text.substr(points.offset[i], points.offset[i + 1] - points.offset[i]));
    }
  } else {
    for (size_t i = 0; i < text.size();) {
      const bool space = text.substr(i, kSpaceMark.size()) == kSpaceMark;
      out.push_back(space ? ' ' : text[i]);
      i += space ? kSpaceMark.size() : 1;
    }
  }
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special,
                              bool strip_prefix) const {
  std::string out;
  bool after_special = true;
  for (const int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= vocabulary_.size())
      throw std::out_of_range("token " + std::to_string(id) + " is not in the vocabulary of " +
                              std::to_string(vocabulary_.size()));
    const uint8_t flags = special_flags_[id];
    const bool special = flags != kNotSpecial;
    if (special && skip_special && (flags & kParsedOnly)) {
      after_special = true;
      continue;
    }
    const size_t before = out.size();
    append_piece(id, out);
    const bool prefix = strip_prefix && space_prefix_ && after_special && !special;
    if (prefix && out.size() > before && out[before] == ' ') out.erase(before, 1);
    after_special = special;
  }
  return out;
}

}  // namespace trit
