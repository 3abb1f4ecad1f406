#include "packed.h"

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace trit {
namespace {

// Each piece costs an interrupt of every other thread.
constexpr int64_t kPieceBytes = 4 << 20;

void forget_rows(const Matrix& w, int64_t first, int64_t last) {
#if defined(__linux__) || defined(__APPLE__)
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t data = reinterpret_cast<uintptr_t>(w.data);
  const uintptr_t begin = (data + static_cast<uintptr_t>(first * w.row_bytes) + page - 1) / page;
  const uintptr_t end = (data + static_cast<uintptr_t>(last * w.row_bytes)) / page;
  if (begin >= end) return;
  madvise(reinterpret_cast<void*>(begin * page), (end - begin) * page, MADV_DONTNEED);
#else
  (void)w, (void)first, (void)last;
#endif
}

}  // namespace

int64_t tiles_bytes(const Matrix& w) {
  const Format& format = *w.format;
  const auto tile = [&](int64_t columns) {
    return tile_bytes(columns / format.block_weights * format.block_bytes);
  };
  return w.columns / kChunkColumns * tile(kChunkColumns) + tile(w.columns % kChunkColumns);
}

int64_t packed_bytes(const Matrix& w) {
  return (w.rows + kTileRows - 1) / kTileRows * tiles_bytes(w);
}

void forget_pages(const Matrix& w) { forget_rows(w, 0, w.rows); }

void forget_piece(const Matrix& w, int64_t row) {
  const int64_t rows = (kPieceBytes / (kTileRows * w.row_bytes) + 1) * kTileRows;
  const int64_t end = row + kTileRows;
  if (end % rows == 0 && end <= w.rows) forget_rows(w, end - rows, end);
}

}  // namespace trit
