// The values of an E2M1 float (OCP Microscaling 1.0, 5.3.3), doubled.
#pragma once

#include "format.h"
#include "isa/isa.h"

namespace trit::TRIT_ISA {

constexpr float kFp4Levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace trit::TRIT_ISA
