// Ternary codebooks whose points are moved by an eighth, up or down: iq1_s, iq1_m.
//
// `span` weights in a row share the direction; both are tried.
#pragma once

#include <type_traits>

#include "quantizers/rtn_codebook.h"

namespace trit::TRIT_ISA::rtn {

constexpr float kTernary[3] = {-1.0f, 0.0f, 1.0f};
constexpr float kShift = 0.125f;

template <const auto& book, int group, int span>
struct ShiftedGrid {
  using Book = std::remove_cvref_t<decltype(book)>;
  static constexpr const Book& kBook = book;
  static constexpr int kSpans = group / span;
  struct Choice {
    Floats shift[kSpans];
  };
  struct Judged {
    Floats error;
    Choice choice;
  };

  const BlockLanes& lanes;
  const Minimums<Book>& minimums;
  Chosen chosen;

  ShiftedGrid(const BlockLanes& of, const Minimums<Book>& by) : lanes(of), minimums(by) {}

  void prepare() {}

  static void keep_better(Choice& kept, Floats& best, const Judged& judged) {
    for (int i = 0; i < kSpans; ++i) {
      kept.shift[i] = select_less(judged.error, best, judged.choice.shift[i], kept.shift[i]);
    }
    best = min(judged.error, best);
  }

  // Both directions of every span, each judged by `judge(first weight, shift)`.
  template <typename Judge>
  static Judged try_both(int first, Judge judge) {
    Judged judged = {};
    for (int i = 0; i < kSpans; ++i) {
      const Floats up = judge(first + i * span, broadcast(kShift));
      const Floats down = judge(first + i * span, broadcast(-kShift));
      judged.choice.shift[i] = select_less(down, up, broadcast(-kShift), broadcast(kShift));
      judged.error = judged.error + min(up, down);
    }
    return judged;
  }

  // As if every combination of digits were in the codebook.
  Judged scan(int first, int, Floats scale) const {
    const Floats inverse_scale = inverse(scale);
    const Judged judged = try_both(first, [&](int at, Floats shift) {
      Floats sum = zeros();
      for (int i = at; i < at + span; ++i) {
        const Floats moved = load(lanes.x[i]) * inverse_scale - shift;
        const Floats off = moved - clamp(round_even(moved), -1.0f, 1.0f);
        sum = sum + load(lanes.w[i]) * (off * off);
      }
      return sum;
    });
    return {judged.error * scale * scale, judged.choice};
  }

  Judged error(int first, int, Floats scale) const {
    return try_both(first, [&](int at, Floats shift) {
      HalfTables<Book> tables;
      Floats cost[kOctet][3];
      Floats sum = zeros();
      for (int i = at; i < at + span; i += kOctet) {
        tabulate_costs<kOctet>(lanes.x + i, lanes.w + i, scale, kTernary, shift, cost);
        sum = sum + least_of<Book>(minimums, cost, tables.first);
      }
      return sum;
    });
  }

  void pick(int first, int n, Floats scale, const Choice& choice) {
    HalfTables<Book> tables;
    for (int i = 0; i < n; i += kOctet) {
      const Floats shift = choice.shift[i / span];
      Floats cost[kOctet][3];
      tabulate_costs<kOctet>(lanes.x + first + i, lanes.w + first + i, scale, kTernary, shift,
                             cost);
      tabulate_halves<Book>(cost, kSum, tables);
      place_nearest(book, minimums, kTernary, first + i, tables, chosen);
      for (int j = first + i; j < first + i + kOctet; ++j) {
        store(chosen.points[j], load(chosen.points[j]) + shift);
      }
      alignas(64) float shifts[kLanes];
      store(shifts, shift);
      for (int lane = 0; lane < kLanes; ++lane) {
        chosen.blocks[lane].signs[(first + i) / kOctet] = shifts[lane] < 0.0f;
      }
    }
  }
};

}  // namespace trit::TRIT_ISA::rtn
