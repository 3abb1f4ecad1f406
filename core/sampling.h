// What is done to a vocabulary's logits for each token that is drawn. The twin in numpy is
// runtime/sample.py: there every operation finds its code and data evicted by the weights that
// were just read, which takes five times as long as it does in a loop.
#pragma once

#include <cstdint>

namespace trit {

// Writes the ids of the `count` greatest of `size` logits, 1 ≤ count ≤ size, greatest first and
// equal ones by id. Returns the greatest; not a number if any is not one, and then no ids.
float greatest(const float* logits, int64_t size, int64_t count, int64_t* ids);

struct Draw {
  int64_t top_k;       // 1 to the number of logits
  double top_p;        // 1: off
  double least;        // min-p: how far below the greatest a logit may be, at most 0; -∞: off
  double temperature;  // above 0
};

// The token that `uniform` in [0, 1) selects, after top-k, top-p, min-p and temperature, and the
// greatest logit; no token if that is not finite.
struct Drawn {
  float top;
  int64_t token;
};
Drawn draw(const float* logits, int64_t size, const Draw& settings, double uniform);

}  // namespace trit
