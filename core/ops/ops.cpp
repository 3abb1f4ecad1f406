// This instruction set's table of kernels.
#include "kernels.h"
#include "ops/attention.h"
#include "ops/cells.h"
#include "ops/elementwise.h"
#if defined(TRIT_ISA_AMX)
#include "ops/int8_loop_tiles.h"
#else
#include "ops/int8_loop.h"
#endif
#include "ops/matmul.h"
#include "ops/moments.h"

#if defined(TRIT_ISA_AMX)  // differs in the products only
#define TRIT_ISA_OF_FORMATS avx512
#define TRIT_ISA_OF_QUANTIZERS avx512
#elif defined(TRIT_ISA_AVXVNNI)  // differs in the int8 dot only, and quantizers have none
#define TRIT_ISA_OF_FORMATS avxvnni
#define TRIT_ISA_OF_QUANTIZERS avx2
#else
#define TRIT_ISA_OF_FORMATS TRIT_ISA
#define TRIT_ISA_OF_QUANTIZERS TRIT_ISA
#endif

namespace trit::TRIT_ISA_OF_FORMATS {

extern const FormatTable kFormats;  // formats/formats.cpp

}  // namespace trit::TRIT_ISA_OF_FORMATS

namespace trit::TRIT_ISA_OF_QUANTIZERS {

// quantizers/quantizers.cpp
bool quantize_rows(const Format& format, const float* weights, int64_t rows, int64_t columns,
                   const float* importance, uint8_t* out);
bool feed_back(const FeedbackBlock& block);
void descend(const DescentBlock& block);
void subtract_products(const double* a, const double* b, double* out);

}  // namespace trit::TRIT_ISA_OF_QUANTIZERS

namespace trit::TRIT_ISA {

using TRIT_ISA_OF_FORMATS::kFormats;
using TRIT_ISA_OF_QUANTIZERS::descend;
using TRIT_ISA_OF_QUANTIZERS::feed_back;
using TRIT_ISA_OF_QUANTIZERS::quantize_rows;
using TRIT_ISA_OF_QUANTIZERS::subtract_products;

#define TRIT_NAME_(name) #name
#define TRIT_NAME(name) TRIT_NAME_(name)

const Kernels kKernels = {
    .isa = TRIT_NAME(TRIT_ISA),
    .formats = &kFormats,
    .tokens = kTokens,
    .quantize_rows = quantize_rows,
    .feed_back = feed_back,
    .descend = descend,
    .subtract_products = subtract_products,
    .quantize_activations = quantize_activations,
    .arrange_activations = arrange_activations,
    .pack = pack,
    .multiply = multiply,
    .multiply_float = multiply_float,
    .rms_norm = rms_norm,
    .add = add,
    .scale = scale,
    .activate_gated = activate_gated,
    .activate = activate,
    .soft_cap = soft_cap,
    .rope = rope,
    .store_key = store_key,
    .store_value = store_value,
    .attend = attend,
    .attend_span = attend_span,
    .attend_merge = attend_merge,
    .add_squares = add_squares,
    .add_products = add_products,
    .int8_loop = int8_loop,
};

}  // namespace trit::TRIT_ISA
