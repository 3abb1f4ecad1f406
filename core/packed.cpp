#include "packed.h"

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace trit {

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

void forget_pages(const Matrix& w) {
#if defined(__linux__) || defined(__APPLE__)
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(w.data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + static_cast<uintptr_t>(w.rows * w.row_bytes)) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#else
  (void)w;
#endif
}

}  // namespace trit
