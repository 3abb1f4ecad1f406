// The only place that asks the CPU what it can do.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace trit {

// The tables this machine can run, the best first. Scalar runs everywhere, unless it was left out.
std::vector<const Kernels*> available_kernels();

// The table named `isa` ("" for the best). Throws std::invalid_argument with the names there are.
const Kernels& choose_kernels(const std::string& isa);

// Row of a format by its name, or null.
const Format* find_format(const Kernels& kernels, const std::string& name);

}  // namespace trit
