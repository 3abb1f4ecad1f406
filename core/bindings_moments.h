// Python's view of moments.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include "decoder.h"
#include "moments.h"

namespace nb = nanobind;

namespace {

template <typename T, int N>
using Given = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Changed = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

void require_moments(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

void add_squares_of(trit::Decoder& decoder, const Given<float, 2>& x,
                    const std::optional<Given<int32_t, 1>>& groups, Changed<double, 2>& sums) {
  require_moments(x.shape(1) == sums.shape(1), "x and sums have the same columns");
  require_moments(!groups || groups->shape(0) == x.shape(0), "one group per row");
  const size_t count = sums.shape(0);
  require_moments(groups ? count > 0 : count == 1, "a row of sums per group");
  for (size_t i = 0; groups && i < groups->shape(0); ++i) {
    const int32_t group = groups->data()[i];
    require_moments(group >= 0 && static_cast<size_t>(group) < count, "a group has no sums");
  }
  nb::gil_scoped_release release;
  trit::add_squares(decoder.pool(), decoder.kernels(), x.data(), static_cast<int64_t>(x.shape(0)),
                    static_cast<int64_t>(x.shape(1)), groups ? groups->data() : nullptr,
                    sums.data());
}

void add_gram_of(trit::Decoder& decoder, const Given<float, 2>& x, Changed<float, 2>& gram) {
  require_moments(gram.shape(0) == x.shape(1) && gram.shape(1) == x.shape(1),
                  "gram is square, of the columns of x");
  nb::gil_scoped_release release;
  trit::add_gram(decoder.pool(), decoder.kernels(), x.data(), static_cast<int64_t>(x.shape(0)),
                 static_cast<int64_t>(x.shape(1)), gram.data());
}

}  // namespace
