// Weights packed into tiles: a copy that takes the place of the mapped file.
//
// Rows as a file has them are read sixteen side by side, which no hardware prefetcher follows;
// tiles are read from end to end. A linear is packed by the first pass that multiplies with it, and
// the pages of the file behind it are then given back.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace trit {

class Packed {
 public:
  // Room for `bytes` in large pages where the system gives them. Throws std::bad_alloc.
  explicit Packed(int64_t bytes);
  ~Packed();
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  int64_t bytes() const { return bytes_; }
  uint8_t* take(int64_t bytes);  // the next part, at a multiple of 64

 private:
  uint8_t* memory_ = nullptr;
  int64_t bytes_ = 0;
  int64_t taken_ = 0;
};

// Bytes of the tiles of sixteen rows, and of all rows.
int64_t tiles_bytes(const Matrix& w);
int64_t packed_bytes(const Matrix& w);

// Gives the pages that lie wholly in `w` back to the system: reading them again reads the file.
// For rows of a mapped file only; anything else would be lost.
void forget_pages(const Matrix& w);

}  // namespace trit
