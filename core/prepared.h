// The inputs of some products in the arrangement that one kind of format wants.
#pragma once

#include "buffers.h"
#include "kernels.h"

namespace trit {

struct Prepared {
  bool floats = false;
  int group = 0;
  int offset = 0;
  int64_t columns = 0;
  Buffer<int8_t> codes;
  Buffer<float> scales, sums, values;
  Buffer<int32_t> starts;

  // Whether `format` wants what is here.
  bool suits(const Format& format) const {
    if (floats != (format.panel == nullptr)) return false;
    return floats || (group == format.group && offset == format.offset);
  }

  // Makes room for `count` rows as `format` wants them.
  void shape(const Format& format, int64_t row_columns, int64_t count) {
    floats = format.panel == nullptr;
    group = format.group;
    offset = format.offset;
    columns = row_columns;
    if (floats) {
      fit(values, padded() * count);
      return;
    }
    fit(codes, columns * count + kTokenPadding * kActivationBlock);
    fit(scales, columns / kActivationBlock * count + kTokenPadding);
    fit(starts, columns / group * count);
    fit(sums, columns / group * count + kTokenPadding);
  }

  // Rows [first, first + count) as a batch of their own.
  Activations integers(int first, int count) {
    const int64_t blocks = columns / kActivationBlock * first;
    const int64_t groups = columns / group * first;
    return {columns,
            group,
            count,
            codes.data() + columns * first,
            scales.data() + blocks,
            starts.data() + groups,
            sums.data() + groups};
  }
  FloatActivations reals(int first, int count) {
    return {padded(), count, values.data() + padded() * first};
  }

 private:
  int64_t padded() const { return (columns + 3) / 4 * 4; }
};

}  // namespace trit
