// IQ4_NL: 32 indices of 4 bits into sixteen uneven levels; weight = d · level[q].
//
//   0: d fp16   2: 16 bytes, byte j holds weight j (low nibble) and 16 + j (high)
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_iq4_levels.h"
#include "formats/_span.h"

namespace trit::TRIT_ISA {

namespace iq4_nl {

constexpr Grid kGrid = {
    .block_weights = 32, .block_bytes = 18, .group = 32, .offset = 128, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block));
  split_fields<4, 16>(block + 2, out.codes);
}

inline void pack(const Block& block, uint8_t* out) {
  write_u16(out, block.d);
  join_fields<4, 16>(block.codes, out + 2);
}

// The block at byte `first` of the pair is columns 32b … 32b + 31.
template <int first, typename Out>
inline void lay_block(const uint8_t* pair, int b, Out& out) {
  store(out.scales[b], halves<first>(pair));
  const Bytes packed[4] = {four_bytes<first + 2>(pair), four_bytes<first + 6>(pair),
                           four_bytes<first + 10>(pair), four_bytes<first + 14>(pair)};
  store_levels(packed, 8 * b, out);
}

template <typename Out>
inline void panel(const uint8_t* tile, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const uint8_t* pair = tile + b / 2 * 9 * kLineBytes;
    lay_block<0>(pair, b, out);
    lay_block<18>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(tile + blocks / 2 * 9 * kLineBytes, blocks - 1, out);
}

}  // namespace iq4_nl

constexpr Format format_iq4_nl = {
    .name = "iq4_nl",
    .ggml_type = 20,
    .block_weights = iq4_nl::kGrid.block_weights,
    .block_bytes = iq4_nl::kGrid.block_bytes,
    .group = iq4_nl::kGrid.group,
    .offset = iq4_nl::kGrid.offset,
    .has_mins = iq4_nl::kGrid.has_mins,
    .code_bits = 8,
    .decode = decode_blocks<iq4_nl::kGrid, iq4_nl::unpack, kIq4Levels>,
    .unpack = iq4_nl::unpack,
    .pack = iq4_nl::pack,
    .pieces = nullptr,
    .panel = iq4_nl::panel<Panel>,
    .dot = TRIT_DOTS(iq4_nl),
};

}  // namespace trit::TRIT_ISA
