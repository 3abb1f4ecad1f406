// In which order to take the minimums over sets of numbers, so that what sets have in common is
// taken once.
//
// A codebook pairs every second half with a set of first halves, and a search wants the least error
// of each set. The sets overlap: with the pairs that occur most often made numbers of their own,
// again and again, iq1_s needs 740 minimums instead of 1967, iq2_s 205 instead of 943. Found when a
// format is first written, in about a millisecond. A minimum is exact in any order.
#pragma once

#include "quantizers/rtn_halves.h"

namespace trit::TRIT_ISA::rtn {

constexpr int kWorthSharing = 3;  // sets that a pair occurs in

// Numbers lie in columns: first the points, then what is shared.
template <class Book>
struct Minimums {
  static constexpr int kColumns = Book::kPoints + kMaxShared;
  int shared = 0;
  uint16_t pair[kMaxShared][2];       // what makes a shared number
  uint16_t start[Book::kPoints + 1];  // of the members of every second half's set
  uint16_t member[Book::kEntries];
};

template <class Book>
struct SharedSearch {
  static constexpr int kColumns = Minimums<Book>::kColumns;
  bool has[Book::kPoints][kColumns] = {};  // [set][number]
  uint8_t sets[kColumns][kColumns] = {};   // with both numbers of a pair: [a][b], a < b

  void insert(int set, int number) {
    count(set, number, 1);
    has[set][number] = true;
  }
  void remove(int set, int number) {
    has[set][number] = false;
    count(set, number, -1);
  }
  void count(int set, int number, int change) {
    for (int other = 0; other < kColumns; ++other) {
      if (!has[set][other]) continue;
      uint8_t& pair = other < number ? sets[other][number] : sets[number][other];
      pair = static_cast<uint8_t>(pair + change);
    }
  }

  // How many sets have the pair of numbers below `columns` that most have.
  int most_common(int columns, uint16_t* pair) const {
    int most = 0;
    for (int a = 0; a < columns; ++a) {
      for (int b = a + 1; b < columns; ++b) {
        if (sets[a][b] <= most) continue;
        most = sets[a][b];
        pair[0] = static_cast<uint16_t>(a);
        pair[1] = static_cast<uint16_t>(b);
      }
    }
    return most;
  }
};

template <class Book>
inline Minimums<Book> make_minimums(const Book& book) {
  SharedSearch<Book> search;
  for (int set = 0; set < Book::kPoints; ++set) {
    for (int e = book.start[set]; e < book.start[set + 1]; ++e) search.insert(set, book.first[e]);
  }
  Minimums<Book> made;
  for (; made.shared < kMaxShared; ++made.shared) {
    const int number = Book::kPoints + made.shared;
    uint16_t* pair = made.pair[made.shared];
    if (search.most_common(number, pair) < kWorthSharing) break;
    for (int set = 0; set < Book::kPoints; ++set) {
      if (!search.has[set][pair[0]] || !search.has[set][pair[1]]) continue;
      search.remove(set, pair[0]);
      search.remove(set, pair[1]);
      search.insert(set, number);
    }
  }
  uint16_t members = 0;
  for (int set = 0; set < Book::kPoints; ++set) {
    made.start[set] = members;
    for (int i = 0; i < made.kColumns; ++i) {
      if (search.has[set][i]) made.member[members++] = static_cast<uint16_t>(i);
    }
  }
  made.start[Book::kPoints] = members;
  return made;
}

// Calls visit(upper digits, lower digits, least error of the first halves that go with them) for
// every second half. Overwrites the columns of `first` behind the points.
template <class Book, typename Visit>
inline void each_second(const Minimums<Book>& minimums, Column* first, Visit visit) {
  for (int i = 0; i < minimums.shared; ++i) {
    const uint16_t* pair = minimums.pair[i];
    store(first[Book::kPoints + i], min(load(first[pair[0]]), load(first[pair[1]])));
  }
  for (int high = 0; high < Book::kSide; ++high) {
    for (int low = 0; low < Book::kSide; ++low) {
      int at = minimums.start[high * Book::kSide + low];
      const int end = minimums.start[high * Book::kSide + low + 1];
      if (at == end) continue;
      Floats least = load(first[minimums.member[at]]);
      while (++at < end) least = min(load(first[minimums.member[at]]), least);
      visit(high, low, least);
    }
  }
}

// The least error of all entries; of the second halves only what their digits cost.
template <class Book>
inline Floats least_error(const Minimums<Book>& minimums, Column* first,
                          const Digits<Book>& second) {
  Floats best = broadcast(kHuge);
  each_second<Book>(minimums, first, [&](int high, int low, Floats least) {
    best = min(second.low[low] + second.high[high] + least, best);
  });
  return best;
}

struct Nearest {
  Floats error, second;  // and which second half the entry has; `find_entry` tells the first
};

template <class Book>
inline Nearest nearest(const Minimums<Book>& minimums, Column* first, const Column* second) {
  Nearest best = {broadcast(kHuge), zeros()};
  each_second<Book>(minimums, first, [&](int high, int low, Floats least) {
    const int point = high * Book::kSide + low;
    const Floats error = load(second[point]) + least;
    best.second = select_less(error, best.error, broadcast(static_cast<float>(point)), best.second);
    best.error = min(error, best.error);
  });
  return best;
}

// One lane's entry, given its second half.
template <class Book>
inline int find_entry(const Book& book, const Column* first, int second, int lane) {
  int best = book.start[second];
  for (int e = best + 1; e < book.start[second + 1]; ++e) {
    if (first[book.first[e]][lane] < first[book.first[best]][lane]) best = e;
  }
  return best;
}

}  // namespace trit::TRIT_ISA::rtn
