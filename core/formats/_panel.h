// Laying sixteen packed rows side by side.
#pragma once

#include <cstdint>

#include "formats/_block.h"

namespace trit::TRIT_ISA {

// Any format, slowly: unpacks block after block and scatters the codes.
template <Grid grid, void (*unpack)(const uint8_t*, Block&), const int8_t* levels = nullptr>
void panel_by_blocks(const TileRows& rows, int columns, Panel& out) {
  for (int r = 0; r < kTileRows; ++r) {
    const uint8_t* row = rows.row[r];
    for (int first = 0; first < columns; first += grid.block_weights, row += grid.block_bytes) {
      Block block;
      unpack(row, block);
      for (int i = 0; i < grid.block_weights; ++i) {
        const int column = first + i;
        const int code = levels != nullptr ? levels[block.codes[i]] + 128 : block.codes[i];
        out.codes[column / 4][r][column % 4] = static_cast<uint8_t>(code);
      }
      for (int i = 0; i < grid.block_weights / grid.group; ++i) {
        const int g = first / grid.group + i;
        out.scales[g][r] = half_to_float(block.d) * static_cast<float>(block.sub_scale[i]);
        if (grid.has_mins) {
          out.mins[g][r] = half_to_float(block.dmin) * static_cast<float>(block.sub_min[i]);
        }
      }
    }
  }
}

} // namespace trit::TRIT_ISA
