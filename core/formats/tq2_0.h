// TQ2_0: 256 ternary codes of 2 bits; weight = d · (q − 1).
//
//   0: codes in two runs of 32 bytes as in q2_k   64: d fp16
//
// No encoder writes the code 3; readers take it for 2.
#pragma once

#include <cstdint>

#include "formats/_dot.h"
#include "formats/_panel.h"

namespace trit::TRIT_ISA {

namespace tq2_0 {

constexpr Grid kGrid = {
    .block_weights = 256, .block_bytes = 66, .group = 32, .offset = 1, .has_mins = false};

inline void unpack(const uint8_t* block, Block& out) {
  set_one_level(out, read_u16(block + 64));
  for (int r = 0; r < 2; ++r) split_fields<2, 32>(block + 32 * r, out.codes + 128 * r);
}

inline void pack(const Block& block, uint8_t* out) {
  for (int r = 0; r < 2; ++r) join_fields<2, 32>(block.codes + 128 * r, out + 32 * r);
  write_u16(out + 64, block.d);
}

template <typename Out>
inline void panel(const uint8_t* tile, int, Out& out) {
  TRIT_UNROLL
  for (int part = 0; part < 4; ++part) {
    store_two_bits(tile, 16 * part, 32 * (part / 2) + 4 * (part % 2), out);
  }
  repeat_scale(low_half_to_floats(load_line(tile, 16)), out);
}

}  // namespace tq2_0

constexpr Format format_tq2_0 = {
    .name = "tq2_0",
    .ggml_type = 35,
    .block_weights = tq2_0::kGrid.block_weights,
    .block_bytes = tq2_0::kGrid.block_bytes,
    .group = tq2_0::kGrid.group,
    .offset = tq2_0::kGrid.offset,
    .has_mins = tq2_0::kGrid.has_mins,
    .code_bits = 2,
    .decode = decode_blocks<tq2_0::kGrid, tq2_0::unpack>,
    .unpack = tq2_0::unpack,
    .pack = tq2_0::pack,
    .pieces = nullptr,
    .panel = tq2_0::panel<Panel>,
    .dot = TRIT_DOTS(tq2_0),
};

}  // namespace trit::TRIT_ISA
