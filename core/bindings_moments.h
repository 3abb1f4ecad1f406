// Python's view of moments.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include <nanobind/stl/optional.h>

#include "bindings_arrays.h"
#include "decoder.h"
#include "moments.h"

namespace trit {
namespace {

void add_squares_of(Decoder& decoder, const In<float, 2>& x,
                    const std::optional<In<int32_t, 1>>& groups, Out<double, 2>& sums) {
  require(x.shape(1) == sums.shape(1), "x and sums have the same columns");
  require(!groups || groups->shape(0) == x.shape(0), "one group per row");
  const size_t count = sums.shape(0);
  require(groups ? count > 0 : count == 1, "a row of sums per group");
  for (size_t i = 0; groups && i < groups->shape(0); ++i) {
    const int32_t group = groups->data()[i];
    require(group >= 0 && static_cast<size_t>(group) < count, "a group has no sums");
  }
  nb::gil_scoped_release release;
  add_squares(decoder.pool(), decoder.kernels(), x.data(), static_cast<int64_t>(x.shape(0)),
              static_cast<int64_t>(x.shape(1)), groups ? groups->data() : nullptr, sums.data());
}

void add_gram_of(Decoder& decoder, const In<float, 2>& x, Out<float, 2>& gram) {
  require(gram.shape(0) == x.shape(1) && gram.shape(1) == x.shape(1),
          "gram is square, of the columns of x");
  nb::gil_scoped_release release;
  add_gram(decoder.pool(), decoder.kernels(), x.data(), static_cast<int64_t>(x.shape(0)),
           static_cast<int64_t>(x.shape(1)), gram.data());
}

}  // namespace
}  // namespace trit
