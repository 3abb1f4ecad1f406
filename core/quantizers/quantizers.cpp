// The quantizers' inner loops for this instruction set.
#include "format.h"
#include "isa/isa.h"

#include "quantizers/gptq.h"
#include "quantizers/gptq_descent.h"
#include "quantizers/gptq_factor.h"
#include "quantizers/rtn.h"
