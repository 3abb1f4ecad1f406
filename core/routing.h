// Which rows of a batch go to which expert, and the buffers of their way through it.
#pragma once

#include <cstdint>
#include <vector>

#include "buffers.h"

namespace trit {

// Rows of one expert: slots [first, first + count) of the packed buffers.
struct ExpertRows {
  int expert;
  int first;
  int count;
};

struct Routing {
  std::vector<float> logits;         // [rows][experts]
  std::vector<int32_t> experts;      // [rows][top_k], ascending
  std::vector<float> shares;         // [rows][top_k]
  std::vector<int32_t> slots;        // [rows][top_k]
  std::vector<ExpertRows> groups;    // of the experts that were chosen, ascending
  Buffer<float> packed;              // [slots][width]: inputs, later outputs
  Buffer<float> gate, up;            // [slots][inner]
  Buffer<float> shared;              // [rows][width]
  std::vector<float> shared_logits;  // [rows]
};

}  // namespace trit
