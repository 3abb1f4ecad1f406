// Q4_K: 256 codes of 4 bits in 8 groups of 32; weight = d · scale · q − dmin · min.
//
//   0: d fp16   2: dmin fp16   4: scales and mins (see _kscales.h)   16: four runs of 32 bytes
//
// Byte j of run r holds weight 64r + j in its low and 64r + 32 + j in its high nibble.
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_kscales.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace q4_k {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 144, .group = 32, .offset = 0, .has_mins = true};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block), read_u16(block + 2));
  unpack_scales(block + 4, out.sub_scale, out.sub_min);
  for (int r = 0; r < 4; ++r) split_fields<4, 32>(block + 16 + 32 * r, out.codes + 64 * r);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  write_u16(out + 2, block.dmin);
  pack_scales(block.sub_scale, block.sub_min, out + 4);
  for (int r = 0; r < 4; ++r) join_fields<4, 32>(block.codes + 64 * r, out + 16 + 32 * r);
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  Bytes header[4];
  load_lines(tile, 0, header);
  store_scales(header, out);
  TRIT_UNROLL
  for (int r = 0; r < 4; ++r) {
    TRIT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int line = 16 * r + 4 * half;
      store_nibbles(tile, 16 + 32 * r + 16 * half, line, line + 8, out);
    }
  }
}

}  // namespace q4_k

constexpr Format format_q4_k = {
    .name = "q4_k",
    .ggml_type = 12,
    .block_weights = q4_k::kGrid.block_weights,
    .block_bytes = q4_k::kGrid.block_bytes,
    .group = q4_k::kGrid.group,
    .offset = q4_k::kGrid.offset,
    .has_mins = q4_k::kGrid.has_mins,
    .code_bits = 4,
    .decode = decode_blocks<q4_k::kGrid, q4_k::unpack>,
    .unpack = q4_k::unpack,
    .pack = q4_k::pack,
    .pieces = nullptr,
    .panel = q4_k::panel<Panel>,
    .dot = TRIT_DOTS(q4_k),
};

}  // namespace trit::TRIT_ISA
