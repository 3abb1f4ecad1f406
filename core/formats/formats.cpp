// The table of this instruction set's formats. CMake lists the folder; nothing else names them all.
#include "format.h"
#include "isa/isa.h"

#include "format_includes.inc"

namespace trit::TRIT_ISA {

const Format* const kFormatRows[] = {
#include "format_rows.inc"
};
extern const FormatTable kFormats;
const FormatTable kFormats = {kFormatRows, sizeof kFormatRows / sizeof kFormatRows[0]};

}  // namespace trit::TRIT_ISA
