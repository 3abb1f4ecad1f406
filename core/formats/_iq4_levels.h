// The sixteen levels of iq4_nl and iq4_xs.
#pragma once

#include <cstdint>

#include "format.h"
#include "isa/isa.h"

namespace trit::TRIT_ISA {

constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

} // namespace trit::TRIT_ISA
