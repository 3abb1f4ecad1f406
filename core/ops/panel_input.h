// A panel of weights and a block of tokens that it is multiplied with.
#pragma once

#include <cstdint>

#include "format.h"

namespace trit {

// The arrays are those of Activations (kernels.h) for the block, from the panel's first column on.
struct PanelInput {
  const Panel& panel;
  int columns;
  int width;  // tokens
  const int8_t* codes;
  const float* scales;
  const int32_t* starts;
  const float* sums;
};

}  // namespace trit
