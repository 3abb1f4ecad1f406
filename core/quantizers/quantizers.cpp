// The quantizers' inner loops for this instruction set.
#include "format.h"
#include "isa/isa.h"

#include "quantizers/rtn.h"
