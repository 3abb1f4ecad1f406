// What the cache holds of a position: keys and values in its element type, written and read.
//
// Every type is read as the same floats wherever it is read: a code times its half scale is exact.
#pragma once

#include <cstring>

#include "isa/isa.h"
#include "kernels.h"
#include "ops/elementwise.h"

namespace trit::TRIT_ISA {

// Cell d of a head lies at d · step + start of the page.
struct CellPlace {
  int64_t start;
  int64_t step;
};

// Larger values would become infinite; a masked position is multiplied by 0, which only a finite
// value survives.
inline float finite_half(float x) {
  constexpr float kLargest = 65504.0f;
  return x > kLargest ? kLargest : x > -kLargest ? x : -kLargest;
}

// Rounds to int8 by blocks of 32, as Q8_0 does: scale = largest / 127, a half.
inline void store_rounded(const float* head, int head_dim, int padded_dim, int slot,
                          CellPlace place, uint8_t* page) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(page + int64_t{kPage} * padded_dim);
  for (int block = 0; block < padded_dim; block += kCacheBlock) {
    Floats x[2];
    for (int i = 0; i < 2; ++i) {
      const int left = head_dim - block - 16 * i;
      x[i] = left > 0 ? load_first(head + block + 16 * i, left < 16 ? left : 16) : broadcast(0.0f);
    }
    const float largest = reduce_max(max(abs(x[0]), abs(x[1])));
    uint16_t scale = to_half(finite_half(largest / 127.0f));
    scales[block / kCacheBlock * kPage + slot] = scale;
    alignas(64) uint16_t lanes[16] = {scale};
    alignas(64) float wide[16];
    store(wide, load_half(lanes));
    const Floats inverse = broadcast(wide[0] > 0.0f ? 1.0f / wide[0] : 0.0f);
    for (int i = 0; i < 2; ++i) {
      const Floats bounded = max(min(x[i] * inverse, broadcast(127.0f)), broadcast(-127.0f));
      int8_t codes[16];
      store_bytes(codes, round_to_ints(bounded));
      for (int d = 0; d < 16; ++d) {
        page[place.start + (block + 16 * i + d) * place.step] = static_cast<uint8_t>(codes[d]);
      }
    }
  }
}

inline void store_cells(CacheType type, const float* head, int head_dim, int padded_dim, int slot,
                        CellPlace place, uint8_t* page) {
  if (type == CacheType::kQ8_0) {
    store_rounded(head, head_dim, padded_dim, slot, place, page);
  } else if (type == CacheType::kF16) {
    uint16_t* cells = reinterpret_cast<uint16_t*>(page) + place.start;
    for (int d = 0; d < head_dim; ++d) cells[d * place.step] = to_half(finite_half(head[d]));
  } else {
    float* cells = reinterpret_cast<float*>(page) + place.start;
    for (int d = 0; d < head_dim; ++d) cells[d * place.step] = head[d];
  }
}

inline void store_key(CacheType type, const float* head, int head_dim, int padded_dim, int slot,
                      uint8_t* page) {
  store_cells(type, head, head_dim, padded_dim, slot, {slot, kPage}, page);
}

inline void store_value(CacheType type, const float* head, int head_dim, int padded_dim, int slot,
                        uint8_t* page) {
  const CellPlace place = {int64_t{slot} * padded_dim, 1};
  store_cells(type, head, head_dim, padded_dim, slot, place, page);
}

constexpr int64_t cell_size(CacheType type) {
  return type == CacheType::kF32 ? 4 : type == CacheType::kF16 ? 2 : 1;
}

// Sixteen cells from number `at` on, without their scale.
template <CacheType type>
inline Floats load_cells(const uint8_t* page, int64_t at) {
  if constexpr (type == CacheType::kF32) {
    return load(reinterpret_cast<const float*>(page) + at);
  } else if constexpr (type == CacheType::kF16) {
    return load_half(reinterpret_cast<const uint16_t*>(page) + at);
  } else {
    return load_codes(reinterpret_cast<const int8_t*>(page) + at);
  }
}

// Sixteen scales of a block of 32 dimensions, those of positions lane … lane + 15.
inline Floats load_scales(const uint8_t* page, int padded_dim, int block, int lane) {
  const uint8_t* scales = page + int64_t{kPage} * padded_dim;
  return load_half(reinterpret_cast<const uint16_t*>(scales) + block * kPage + lane);
}

// A page's keys, or values, as floats: what many queries read is converted once.
template <CacheType type>
inline void widen_keys(const uint8_t* page, int padded_dim, float* out) {
  for (int block = 0; block < padded_dim / kCacheBlock; ++block) {
    for (int lane = 0; lane < kPage; lane += 16) {
      Floats scale = broadcast(1.0f);
      if constexpr (type == CacheType::kQ8_0) scale = load_scales(page, padded_dim, block, lane);
      for (int d = block * kCacheBlock; d < (block + 1) * kCacheBlock; ++d) {
        const Floats cells = load_cells<type>(page, int64_t{d} * kPage + lane);
        store(out + d * kPage + lane, type == CacheType::kQ8_0 ? cells * scale : cells);
      }
    }
  }
}

template <CacheType type>
inline void widen_values(const uint8_t* page, int padded_dim, float* out) {
  alignas(64) float scales[kPage];
  for (int block = 0; block < padded_dim / kCacheBlock; ++block) {
    if constexpr (type == CacheType::kQ8_0) {
      for (int lane = 0; lane < kPage; lane += 16) {
        store(scales + lane, load_scales(page, padded_dim, block, lane));
      }
    }
    for (int p = 0; p < kPage; ++p) {
      for (int i = 0; i < kCacheBlock; i += 16) {
        const int64_t at = int64_t{p} * padded_dim + block * kCacheBlock + i;
        const Floats cells = load_cells<type>(page, at);
        store(out + at, type == CacheType::kQ8_0 ? cells * broadcast(scales[p]) : cells);
      }
    }
  }
}

}  // namespace trit::TRIT_ISA
