// Weights packed into tiles: a copy that takes the place of the mapped file.
//
// Rows as a file has them are read sixteen side by side, which no hardware prefetcher follows;
// tiles are read from end to end. A linear is packed by the first pass that multiplies with it, and
// the pages of the file behind it are given back as it goes.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace trit {

// Bytes of the tiles of sixteen rows, and of all rows.
int64_t tiles_bytes(const Matrix& w);
int64_t packed_bytes(const Matrix& w);

// Gives the pages that lie wholly in `w` back to the system: reading them again reads the file.
// For rows of a mapped file only; anything else would be lost.
void forget_pages(const Matrix& w);

// The same for a few MB of rows, once the last sixteen of these, from `row`, are packed; else does
// nothing. Threads that are not done with others of them read the file again.
void forget_piece(const Matrix& w, int64_t row);

}  // namespace trit
