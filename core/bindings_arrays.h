// Arrays as the bindings take and give them; a part of bindings.cpp and its other headers.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace nb = nanobind;

namespace trit {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// A fresh numpy array that owns its memory.
template <typename T>
struct Fresh {
  explicit Fresh(std::vector<size_t> dims) : shape(std::move(dims)) {
    size_t size = 1;
    for (const size_t n : shape) size *= n;
    owned = std::make_unique<T[]>(size + 64);  // kernels may touch a register beyond the end
    data = owned.get();
  }
  nb::ndarray<nb::numpy, T> take() {
    nb::capsule owner(owned.release(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::ndarray<nb::numpy, T>(data, shape.size(), shape.data(), owner);
  }
  std::vector<size_t> shape;
  std::unique_ptr<T[]> owned;
  T* data;
};

inline void require(bool ok, const std::string& what) {
  if (!ok) throw std::invalid_argument(what);
}

}  // namespace trit
