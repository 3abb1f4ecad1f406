// IQ4_NL: 32 indices of 4 bits into sixteen uneven levels; weight = d · level[q].
//
//   0: d fp16   2: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <cstdint>

#include "formats/_iq4_levels.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace iq4_nl {

constexpr Grid kGrid = {.block_weights = 32,
                        .block_bytes = 18,
                        .group = 32,
                        .offset = 128,
                        .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  split_fields<4, 16>(block + 2, out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  join_fields<4, 16>(block.codes, out + 2);
}

inline void panel(const TileRows& rows, int columns, Panel& out) {
  for (int b = 0; b < columns / 32; ++b) {
    const int64_t at = b * kGrid.block_bytes;
    store_scale(rows, at, b, out);
    store_levels(rows, at + 2, 8 * b, out);
  }
}

} // namespace iq4_nl

constexpr Format format_iq4_nl = {
    .name = "iq4_nl",
    .ggml_type = 20,
    .block_weights = iq4_nl::kGrid.block_weights,
    .block_bytes = iq4_nl::kGrid.block_bytes,
    .group = iq4_nl::kGrid.group,
    .offset = iq4_nl::kGrid.offset,
    .has_mins = iq4_nl::kGrid.has_mins,
    .wide = true,
    .decode = decode_blocks<iq4_nl::kGrid, iq4_nl::unpack, kIq4Levels>,
    .unpack = iq4_nl::unpack,
    .pack = iq4_nl::pack,
    .panel = iq4_nl::panel,
};

} // namespace trit::TRIT_ISA
