// Codebooks of magnitudes with a sign for each weight: iq2_xxs iq2_xs iq2_s, iq3_xxs iq3_s.
//
// Formats that store seven signs of eight have an even number of minus signs in every octet, so
// that an odd octet must give one weight the wrong sign. While scales are compared it is the one
// that would cost least if all magnitudes were alike; the last word has a search of entry and sign
// together.
#pragma once

#include <type_traits>

#include "quantizers/rtn_codebook.h"

namespace trit::TRIT_ISA::rtn {

template <int levels>
struct Magnitudes {
  float level[levels];
};

template <int levels>
constexpr Magnitudes<levels> make_magnitudes(const int8_t (&integers)[levels], float unit) {
  Magnitudes<levels> made{};
  for (int i = 0; i < levels; ++i) made.level[i] = static_cast<float>(integers[i]) * unit;
  return made;
}

template <const auto& book, const auto& magnitudes, bool even>
struct SignedGrid {
  using Book = std::remove_cvref_t<decltype(book)>;
  static constexpr const Book& kBook = book;
  static constexpr int kLevels = Book::kLevels;
  static constexpr int kWidth = 2 * Book::kDims;    // weights of an entry
  static constexpr int kEntries = kOctet / kWidth;  // of an octet
  struct Choice {};
  struct Judged {
    Floats error;
  };

  const BlockLanes& lanes;
  const Minimums<Book>& minimums;
  alignas(64) Column x[kMaxBlock];             // magnitudes; negative: of the wrong sign
  alignas(64) Column odd[kMaxBlock / kOctet];  // 1 where an octet has an odd number of minus signs
  Chosen chosen;

  SignedGrid(const BlockLanes& of, const Minimums<Book>& by) : lanes(of), minimums(by) {}

  void prepare() {
    for (int i = 0; i < kMaxBlock; ++i) store(x[i], abs(load(lanes.x[i])));
    if constexpr (even) {
      for (int first = 0; first < kMaxBlock; first += kOctet) prepare_octet(first);
    }
  }

  void prepare_octet(int first) {
    Floats product = broadcast(1.0f), least = broadcast(kHuge);
    for (int i = first; i < first + kOctet; ++i) {
      const Floats value = load(lanes.x[i]);
      product = select_less(value, zeros(), zeros() - product, product);
      least = min(load(lanes.w[i]) * abs(value), least);
    }
    Floats left = select_less(product, zeros(), broadcast(1.0f), zeros());  // to be made negative
    store(odd[first / kOctet], left);
    for (int i = first; i < first + kOctet; ++i) {
      const Floats value = load(x[i]);
      const Floats none = zeros();
      const Floats here = select_less(least, load(lanes.w[i]) * value, none, left);
      store(x[i], select_less(none, here, none - value, value));
      left = left - here;
    }
  }

  static void keep_better(Choice&, Floats& best, const Judged& judged) {
    best = min(judged.error, best);
  }

  Judged scan(int first, int n, Floats scale) const { return error(first, n, scale); }

  Judged error(int first, int n, Floats scale) const {
    HalfTables<Book> tables;
    Floats cost[kWidth][kLevels];
    Floats sum = zeros();
    for (int i = first; i < first + n; i += kWidth) {
      tabulate_costs<kWidth>(x + i, lanes.w + i, scale, magnitudes.level, zeros(), cost);
      sum = sum + least_of<Book>(minimums, cost, tables.first);
    }
    return {sum};
  }

  void pick(int first, int n, Floats scale, Choice) {
    for (int i = first; i < first + n; i += kOctet) {
      if constexpr (even) {
        pick_even(i, scale);
      } else {
        HalfTables<Book> tables;
        for (int e = i; e < i + kOctet; e += kWidth) {
          Floats cost[kWidth][kLevels];
          tabulate_costs<kWidth>(x + e, lanes.w + e, scale, magnitudes.level, zeros(), cost);
          tabulate_halves<Book>(cost, kSum, tables);
          place_nearest(book, minimums, magnitudes.level, e, tables, chosen);
        }
      }
      set_signs(i);
    }
  }

  // Errors with all signs right, and with one wrong, which costs 4 · w · |x| · value more.
  struct Tables {
    HalfTables<Book> right, wrong;
  };

  void tabulate_both(int first, Floats scale, Tables& tables) const {
    Floats cost[kWidth][kLevels];
    alignas(64) Column magnitude[kWidth];
    for (int j = 0; j < kWidth; ++j) store(magnitude[j], abs(load(x[first + j])));
    tabulate_costs<kWidth>(magnitude, lanes.w + first, scale, magnitudes.level, zeros(), cost);
    tabulate_halves<Book>(cost, kSum, tables.right);
    for (int digit = 0; digit < kLevels; ++digit) {
      const Floats fourfold = scale * broadcast(4.0f * magnitudes.level[digit]);
      for (int j = 0; j < kWidth; ++j) {
        cost[j][digit] = load(lanes.w[first + j]) * load(magnitude[j]) * fourfold;
      }
    }
    tabulate_halves<Book>(cost, kLeast, tables.wrong);
    for (int i = 0; i < Book::kPoints; ++i) {
      store(tables.wrong.first[i], load(tables.wrong.first[i]) + load(tables.right.first[i]));
      store(tables.wrong.second[i], load(tables.wrong.second[i]) + load(tables.right.second[i]));
    }
  }

  // The best of both: all right, or wrong in one half.
  struct Options {
    Nearest right, wrong;
    Floats in_first;  // 1 where the wrong sign is in the first half
  };

  Options find_options(Tables& tables) const {
    const Nearest right = nearest(minimums, tables.right.first, tables.right.second);
    const Nearest early = nearest(minimums, tables.wrong.first, tables.right.second);
    const Nearest late = nearest(minimums, tables.right.first, tables.wrong.second);
    const Floats one = broadcast(1.0f);
    return {right,
            {min(early.error, late.error),
             select_less(early.error, late.error, early.second, late.second)},
            select_less(early.error, late.error, one, zeros())};
  }

  // The entries of an octet, one of them with a wrong sign where the signs are odd.
  void pick_even(int first, Floats scale) {
    Tables tables[kEntries];
    Options options[kEntries];
    for (int e = 0; e < kEntries; ++e) {
      tabulate_both(first + e * kWidth, scale, tables[e]);
      options[e] = find_options(tables[e]);
    }
    Floats wrong[2] = {load(odd[first / kOctet]), zeros()};  // 1 where the entry has a wrong sign
    if constexpr (kEntries == 2) {
      const Floats early = options[0].wrong.error + options[1].right.error;
      const Floats late = options[0].right.error + options[1].wrong.error;
      wrong[1] = select_less(late, early, wrong[0], zeros());
      wrong[0] = wrong[0] - wrong[1];
    }
    for (int e = 0; e < kEntries; ++e) {
      alignas(64) float second[kLanes], in_first[kLanes];
      const Options& o = options[e];
      store(second, select_less(zeros(), wrong[e], o.wrong.second, o.right.second));
      store(in_first, wrong[e] * o.in_first);
      for (int lane = 0; lane < kLanes; ++lane) {
        const HalfTables<Book>& used = in_first[lane] > 0.0f ? tables[e].wrong : tables[e].right;
        place_entry(book, magnitudes.level, first + e * kWidth, lane, used,
                    static_cast<int>(second[lane]), chosen);
      }
    }
  }

  // The weights' signs, but for the cheapest wrong one of an odd octet.
  void set_signs(int first) {
    Floats least = broadcast(kHuge);
    Floats left = even ? load(odd[first / kOctet]) : zeros();
    Floats price[kOctet];
    for (int j = 0; j < kOctet; ++j) {
      const int i = first + j;
      price[j] = load(lanes.w[i]) * abs(load(x[i])) * load(chosen.points[i]);
      least = min(price[j], least);
    }
    Floats signs = zeros();
    for (int j = 0; j < kOctet; ++j) {
      const int i = first + j;
      const Floats here = select_less(least, price[j], zeros(), left);
      left = left - here;
      Floats minus = select_less(load(lanes.x[i]), zeros(), broadcast(1.0f), zeros());
      minus = minus + here - (minus + minus) * here;  // one or the other
      const Floats point = load(chosen.points[i]);
      store(chosen.points[i], point - (point + point) * minus);
      signs = signs + minus * broadcast(static_cast<float>(1 << j));
    }
    alignas(64) float bits[kLanes];
    store(bits, signs);
    for (int lane = 0; lane < kLanes; ++lane) {
      chosen.blocks[lane].signs[first / kOctet] = static_cast<uint8_t>(bits[lane]);
    }
  }
};

}  // namespace trit::TRIT_ISA::rtn
