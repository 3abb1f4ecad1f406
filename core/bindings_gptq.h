// Python's view of gptq.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings_arrays.h"
#include "dispatch.h"
#include "gptq.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace trit {
namespace {

// Checks that `order` holds every column once, whole blocks of `block` columns together.
void require_order(const In<int32_t, 1>& order, int64_t columns, int64_t block) {
  require(static_cast<int64_t>(order.shape(0)) == columns, "an order of all columns");
  std::vector<bool> seen(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i) {
    const int64_t column = order.data()[i];
    require(column >= 0 && column < columns && !seen[static_cast<size_t>(column)],
            "an order of all columns");
    require(column / block == order.data()[i / block * block] / block,
            "columns of a block stay together");
    seen[static_cast<size_t>(column)] = true;
  }
}

// The format of that name, if rows of the weights are blocks of it and `panels` holds a matrix of
// their columns.
const Format& require_format(const Kernels& kernels, const std::string& name,
                             const In<float, 2>& weights, const In<float, 3>& panels, int threads) {
  const Format* format = find_format(kernels, name);
  require(format != nullptr, "no format named '" + name + "'");
  const size_t n = weights.shape(1);
  const int64_t columns = static_cast<int64_t>(n), block = format->block_weights;
  require(block % kMomentColumns == 0 && block <= kChunkColumns, name + " has no such blocks");
  require(columns > 0 && columns % block == 0,
          name + " needs columns in multiples of " + std::to_string(block));
  require(panels.shape(0) == n / kMomentColumns && panels.shape(1) == n &&
              panels.shape(2) == kMomentColumns,
          "panels of all columns");
  require(threads >= 1 && threads <= 1024, "threads: 1 to 1024");
  return *format;
}

// None where the damped matrix is not positive definite.
nb::object gptq_factor(const In<float, 2>& gram, const In<int32_t, 1>& order, double share,
                       double floor, int threads, const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  const size_t n = gram.shape(0);
  require(n == gram.shape(1) && n > 0 && n % kMomentColumns == 0, "a square of 32s of columns");
  require(threads >= 1 && threads <= 1024, "threads: 1 to 1024");
  require_order(order, static_cast<int64_t>(n), 1);
  Fresh<float> panels({n / kMomentColumns, n, kMomentColumns});
  Fresh<float> variances({n});
  bool ok = false;
  {
    nb::gil_scoped_release release;
    Threads pool(threads);
    ok = factorize(pool, kernels, gram.data(), static_cast<int64_t>(n), order.data(), share, floor,
                   panels.data, variances.data);
  }
  if (!ok) return nb::none();
  return nb::make_tuple(panels.take(), variances.take());
}

// `given`: packed rows that are only judged.
nb::tuple gptq(const std::string& name, const In<float, 2>& weights, const In<float, 3>& panels,
               const In<float, 1>& variances, const In<int32_t, 1>& order,
               const In<float, 1>& importance, const std::optional<In<uint8_t, 2>>& given,
               int threads, const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  const Format& format = require_format(kernels, name, weights, panels, threads);
  const size_t rows = weights.shape(0), n = weights.shape(1);
  const int64_t columns = static_cast<int64_t>(n), block = format.block_weights;
  require(variances.shape(0) == n && importance.shape(0) == n,
          "a factor and an importance of all columns");
  require_order(order, columns, block);
  const size_t row_bytes = static_cast<size_t>(columns / block * format.block_bytes);
  require(!given || (given->shape(0) == rows && given->shape(1) == row_bytes),
          "packed rows of the weights");
  Fresh<uint8_t> packed({rows, row_bytes});
  Fresh<double> losses({rows});
  if (given) std::memcpy(packed.data, given->data(), rows * row_bytes);
  bool ok = false;
  {
    nb::gil_scoped_release release;
    Threads pool(threads);
    ok = feed_back(pool, kernels,
                   {&format, weights.data(), static_cast<int64_t>(rows), columns, panels.data(),
                    variances.data(), order.data(), importance.data(), given.has_value(),
                    packed.data, losses.data});
  }
  require(ok, name + " cannot be written");
  return nb::make_tuple(packed.take(), losses.take());
}

// `panels`: G itself, as gptq.h has it.
nb::object gptq_descend(const std::string& name, const In<float, 2>& weights,
                        const In<float, 3>& panels, const In<float, 1>& damping,
                        const In<uint8_t, 2>& given, int sweeps, int threads,
                        const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  const Format& format = require_format(kernels, name, weights, panels, threads);
  const size_t rows = weights.shape(0), n = weights.shape(1);
  const int64_t columns = static_cast<int64_t>(n), block = format.block_weights;
  require(damping.shape(0) == n, "a damping of all columns");
  require(sweeps >= 0, "sweeps: 0 or more");
  const size_t row_bytes = static_cast<size_t>(columns / block * format.block_bytes);
  require(given.shape(0) == rows && given.shape(1) == row_bytes, "packed rows of the weights");
  Fresh<uint8_t> packed({rows, row_bytes});
  std::memcpy(packed.data, given.data(), rows * row_bytes);
  {
    nb::gil_scoped_release release;
    Threads pool(threads);
    descend(pool, kernels,
            {&format, weights.data(), static_cast<int64_t>(rows), columns, panels.data(),
             damping.data(), sweeps, packed.data});
  }
  return nb::cast(packed.take());
}

void bind_gptq(nb::module_& m) {
  m.def("gptq_factor", &gptq_factor, "gram"_a, "order"_a, "share"_a, "floor"_a, "threads"_a,
        "isa"_a = "");
  m.def("gptq", &gptq, "format"_a, "weights"_a, "panels"_a, "variances"_a, "order"_a,
        "importance"_a, "given"_a.none(), "threads"_a, "isa"_a = "");
  m.def("gptq_descend", &gptq_descend, "format"_a, "weights"_a, "panels"_a, "damping"_a, "given"_a,
        "sweeps"_a, "threads"_a, "isa"_a = "");
}

}  // namespace
}  // namespace trit
