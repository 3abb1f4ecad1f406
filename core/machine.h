// What this machine can do at best, measured: the limits that decoding and prefill run into.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "threads.h"

namespace trit {

// Bytes per second that all threads read from memory: the best of three passes over `bytes`, which
// should be far more than the caches hold. Allocates them; throws std::bad_alloc.
double read_bandwidth(Threads& threads, int64_t bytes);

// Operations (a multiplication and an addition are two) per second of int8 products on all threads,
// with the instructions the kernels use and operands in the nearest cache: the best of three tries.
double int8_rate(Threads& threads, const Kernels& kernels);

}  // namespace trit
