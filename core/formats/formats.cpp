// The table of this instruction set's formats. CMake lists the folder; nothing else names them all.
#include "format.h"
#include "isa/isa.h"

#include "format_includes.inc"

namespace trit::TRIT_ISA {

constexpr const Format* kFormatRows[] = {
#include "format_rows.inc"
};

// Products are written for these (ops/panel_product.h).
constexpr bool has_product(const Format& format) {
  if (format.code_bits == 0) return true;  // multiplied in floats
  if (format.code_bits == 8) return format.group == 32 && !format.has_mins;
  if (format.code_bits == 6) return format.group == 16 && !format.has_mins;
  if (format.code_bits == 5) return format.group == 32;
  return format.code_bits <= 4 && (format.group == 16 || format.group == 32);
}
constexpr bool all_have_products() {
  for (const Format* format : kFormatRows) {
    if (!has_product(*format)) return false;
  }
  return true;
}
static_assert(all_have_products());

extern const FormatTable kFormats;
const FormatTable kFormats = {kFormatRows, sizeof kFormatRows / sizeof kFormatRows[0]};

}  // namespace trit::TRIT_ISA
