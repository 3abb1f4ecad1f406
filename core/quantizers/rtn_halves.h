// Codebooks as pairs of halves, so that the nearest entry is found by trying all at little cost.
//
// The error of each half that there can be (81 of four ternary digits, 64 of two octal ones) is
// tabulated for sixteen lanes at once; an entry's error is the sum of one from either table, and
// entries that share their second half take one minimum each. Codebooks are in the order of their
// second halves.
#pragma once

#include "formats/_codebooks.h"
#include "quantizers/rtn_lanes.h"

namespace trit::TRIT_ISA::rtn {

constexpr float kHuge = 3e38f;   // no error is
constexpr int kMaxShared = 128;  // see rtn_minimums.h

// A point is a half: `dims` digits below `levels`, the first weight's the lowest.
template <int entries, int dims, int levels>
struct Halves {
  static constexpr int kEntries = entries, kDims = dims, kLevels = levels;
  static constexpr int kSide = dims == 2 ? levels : levels * levels;
  static constexpr int kPoints = kSide * kSide;
  uint16_t start[kPoints + 1];  // the entries whose second half is this point
  uint8_t first[entries];       // the point of their first half
};

// Of the digits in `bits` bits each that _codebooks.h has; done by the compiler.
template <int dims, int levels, int entries>
constexpr Halves<entries, dims, levels> make_halves(const uint16_t (&packed)[entries]) {
  constexpr int kBits = dims == 4 ? 2 : 3;
  constexpr int kHalf = 1 << (kBits * dims);
  Halves<entries, dims, levels> made{};
  const auto point = [](int half) {
    int sum = 0;
    for (int j = dims - 1; j >= 0; --j) sum = sum * levels + (half >> (kBits * j)) % (1 << kBits);
    return sum;
  };
  int e = 0;
  for (int second = 0; second < made.kPoints; ++second) {
    made.start[second] = static_cast<uint16_t>(e);
    for (; e < entries && point(packed[e] / kHalf) == second; ++e) {
      made.first[e] = static_cast<uint8_t>(point(packed[e] % kHalf));
    }
  }
  made.start[made.kPoints] = static_cast<uint16_t>(e);
  if (e != entries || made.start[1] == 0) throw "not in the order of second halves from 0 on";
  return made;
}

// Errors of every first and every second half, and room for what rtn_minimums.h makes of them.
template <class Book>
struct HalfTables {
  alignas(64) Column first[Book::kPoints + kMaxShared];
  alignas(64) Column second[Book::kPoints];
};

// What the lower and the upper digits of a half cost: point low + high · kSide is joined of both.
template <class Book>
struct Digits {
  Floats low[Book::kSide], high[Book::kSide];
};

// cost[j][digit] of a half's weights, joined by `join`: a sum, or the least.
template <class Book, typename Join>
inline Digits<Book> join_digits(const Floats (*cost)[Book::kLevels], Join join) {
  constexpr int kLevels = Book::kLevels;
  Digits<Book> made;
  for (int i = 0; i < Book::kSide; ++i) {
    if constexpr (Book::kDims == 2) {
      made.low[i] = cost[0][i];
      made.high[i] = cost[1][i];
    } else {
      made.low[i] = join(cost[0][i % kLevels], cost[1][i / kLevels]);
      made.high[i] = join(cost[2][i % kLevels], cost[3][i / kLevels]);
    }
  }
  return made;
}

template <class Book, typename Join>
inline void tabulate(const Digits<Book>& digits, Column* out, Join join) {
  for (int high = 0; high < Book::kSide; ++high) {
    for (int low = 0; low < Book::kSide; ++low) {
      store(out[high * Book::kSide + low], join(digits.low[low], digits.high[high]));
    }
  }
}

constexpr auto kSum = [](Floats a, Floats b) { return a + b; };
constexpr auto kLeast = [](Floats a, Floats b) { return min(a, b); };

}  // namespace trit::TRIT_ISA::rtn
