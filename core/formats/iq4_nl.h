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

// The block at byte `first` of the span is columns 32b … 32b + 31.
template <int first, int bytes, typename Out>
inline void lay_block(const Span<bytes>& span, int b, Out& out) {
  store(out.scales[b], halves<first>(span));
  const Bytes packed[4] = {four_bytes<first + 2>(span), four_bytes<first + 6>(span),
                           four_bytes<first + 10>(span), four_bytes<first + 14>(span)};
  store_levels(packed, 8 * b, out);
}

template <typename Out>
inline void panel(const TileRows& rows, int columns, Out& out) {
  const int blocks = columns / 32;
  TRIT_UNROLL
  for (int b = 0; b + 1 < blocks; b += 2) {
    const Span<36> pair = load_span<36>(rows, b * 18);
    lay_block<0>(pair, b, out);
    lay_block<18>(pair, b + 1, out);
  }
  if (blocks % 2 != 0) lay_block<0>(load_span<18>(rows, (blocks - 1) * 18), blocks - 1, out);
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
    .wide = true,
    .decode = decode_blocks<iq4_nl::kGrid, iq4_nl::unpack, kIq4Levels>,
    .unpack = iq4_nl::unpack,
    .pack = iq4_nl::pack,
    .panel = iq4_nl::panel<Panel>,
    .dot = fused_dot<iq4_nl::kGrid, iq4_nl::panel<Dot<iq4_nl::kGrid>>>(),
};

}  // namespace trit::TRIT_ISA
