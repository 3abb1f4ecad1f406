// Python's view of moments.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include "bindings_arrays.h"
#include "decoder.h"
#include "moments.h"

namespace trit {
namespace {

void add_gram_of(Decoder& decoder, const In<float, 2>& x, Out<float, 2>& gram) {
  require(gram.shape(0) == x.shape(1) && gram.shape(1) == x.shape(1),
          "gram is square, of the columns of x");
  nb::gil_scoped_release release;
  add_gram(decoder.pool(), decoder.kernels(), x.data(), static_cast<int64_t>(x.shape(0)),
           static_cast<int64_t>(x.shape(1)), gram.data());
}

}  // namespace
}  // namespace trit
