// IQ4_XS: 256 indices of 4 bits in 8 groups of 32; weight = d · (scale − 32) · level[q].
//
//   0: d fp16   2: high two bits of the scales, group g in bits 2g   4: low four bits, two a byte
//   8: eight runs of 16 bytes as in iq4_nl
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_iq4_levels.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace iq4_xs {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 136, .group = 32, .offset = 128, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  clear_levels(out, read_u16(block), 0);
  const int high = read_u16(block + 2);
  for (int g = 0; g < 8; ++g) {
    const int low = (block[4 + g / 2] >> (g % 2 * 4)) & 15;
    out.sub_scale[g] = static_cast<int16_t>((low | (((high >> (2 * g)) & 3) << 4)) - 32);
    split_fields<4, 16>(block + 8 + 16 * g, out.codes + 32 * g);
  }
}

inline void pack(const Block& block, uint8_t* out) {
  int high = 0;
  write_u16(out, block.d);
  std::memset(out + 4, 0, 4);
  for (int g = 0; g < 8; ++g) {
    const int scale = block.sub_scale[g] + 32;
    high |= (scale >> 4) << (2 * g);
    out[4 + g / 2] |= static_cast<uint8_t>((scale & 15) << (g % 2 * 4));
    join_fields<4, 16>(block.codes + 32 * g, out + 8 + 16 * g);
  }
  write_u16(out + 2, static_cast<uint16_t>(high));
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  Bytes header[4];
  load_lines(tile, 0, header);
  const Floats d = low_half_to_floats(header[0]);
  const Bytes high = header[0];  // group g in bits 16 + 2g; its place is byte g / 2, bits 4 and 5
  const Bytes even = (shift_right<12>(high) & broadcast_lane(0x00000030)) |
                     (shift_right<8>(high) & broadcast_lane(0x00003000)) |
                     (shift_right<4>(high) & broadcast_lane(0x00300000)) |
                     (high & broadcast_lane(0x30000000));
  const Bytes odd = (shift_right<14>(high) & broadcast_lane(0x00000030)) |
                    (shift_right<10>(high) & broadcast_lane(0x00003000)) |
                    (shift_right<6>(high) & broadcast_lane(0x00300000)) |
                    (shift_right<2>(high) & broadcast_lane(0x30000000));
  float scales[8][kTileRows];
  store_groups(low_nibbles(header[1]) | even, 32.0f, d, scales);
  store_groups(high_nibbles(header[1]) | odd, 32.0f, d, scales + 4);
  TRIT_UNROLL
  for (int g = 0; g < 8; ++g) {
    store(out.scales[g], load(scales[g % 2 * 4 + g / 2]));
    Bytes packed[4];
    load_lines(tile, 8 + 16 * g, packed);
    store_levels(packed, 8 * g, out);
  }
}

}  // namespace iq4_xs

constexpr Format format_iq4_xs = {
    .name = "iq4_xs",
    .ggml_type = 23,
    .block_weights = iq4_xs::kGrid.block_weights,
    .block_bytes = iq4_xs::kGrid.block_bytes,
    .group = iq4_xs::kGrid.group,
    .offset = iq4_xs::kGrid.offset,
    .has_mins = iq4_xs::kGrid.has_mins,
    .code_bits = 8,
    .decode = decode_blocks<iq4_xs::kGrid, iq4_xs::unpack, kIq4Levels>,
    .unpack = iq4_xs::unpack,
    .pack = iq4_xs::pack,
    .pieces = nullptr,
    .panel = iq4_xs::panel<Panel>,
    .dot = TRIT_DOTS(iq4_xs),
};

}  // namespace trit::TRIT_ISA
