// Python's view of decoder.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>

#include "bindings_arrays.h"
#include "bindings_moments.h"
#include "decoder.h"
#include "dispatch.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace trit {
namespace {

using Tokens = In<int32_t, 1>;
using Positions = In<int64_t, 1>;
using Floats2 = Out<float, 2>;
using Doubles2 = Out<double, 2>;

void require_tokens(const Decoder& decoder, const Tokens& tokens) {
  const Model& model = decoder.model();
  const int64_t vocab = model.weights[static_cast<size_t>(model.embedding)].rows;
  for (size_t i = 0; i < tokens.shape(0); ++i) {
    require(tokens.data()[i] >= 0 && tokens.data()[i] < vocab,
            "token " + std::to_string(tokens.data()[i]) + " is outside the vocabulary");
  }
}

Rows rows_of(const Tokens& sequences, const Positions& positions) {
  require(positions.shape(0) == sequences.shape(0), "one sequence and one position per row");
  return {sequences.data(), positions.data(), static_cast<int>(sequences.shape(0))};
}

// Hidden states (`logits` false) or logits of the rows listed in `outputs`, ascending, into `out`.
void forward(Decoder& decoder, const Tokens& tokens, const Tokens& sequences,
             const Positions& positions, const Tokens& outputs, bool logits, Floats2& out) {
  const Rows rows = rows_of(sequences, positions);
  require(tokens.shape(0) == sequences.shape(0), "one token per row");
  require_tokens(decoder, tokens);
  const size_t k = outputs.shape(0);
  const size_t width = static_cast<size_t>(decoder.model().width);
  const size_t vocab = static_cast<size_t>(decoder.model().head.rows);
  require(out.shape(0) == k && out.shape(1) == (logits ? vocab : width), "shape of out");
  for (size_t i = 0; i < k; ++i) {
    const int32_t row = outputs.data()[i];
    require(row >= (i ? outputs.data()[i - 1] + 1 : 0) && row < rows.count,
            "outputs are rows of the batch, ascending");
  }
  decoder.cache().check(rows.sequences, rows.positions, rows.count);
  nb::gil_scoped_release release;
  size_t next = 0;
  std::vector<float> chosen;
  decoder.pass(tokens.data(), rows, [&](int first, int count, const float* hidden) {
    const size_t start = next;
    for (; next < k && outputs.data()[next] < first + count; ++next) {
      const float* row = hidden + static_cast<size_t>(outputs.data()[next] - first) * width;
      if (logits) {
        chosen.insert(chosen.end(), row, row + width);
      } else {
        std::memcpy(out.data() + next * width, row, width * sizeof(float));
      }
    }
    if (logits && next > start) {
      decoder.head(chosen.data(), static_cast<int>(next - start), out.data() + start * vocab);
    }
    chosen.clear();
  });
}

// The mixture of a layer if the weight is a stack of its experts, or null.
const MixtureOfExperts* mixture_of(const Decoder& decoder, int index, int handle) {
  const Layer& layer = decoder.model().layers[static_cast<size_t>(index)];
  const auto* mixture = std::get_if<MixtureOfExperts>(&layer.feed_forward);
  const bool stack =
      mixture && (handle == mixture->gate || handle == mixture->up || handle == mixture->down);
  return stack ? mixture : nullptr;
}

// The values of a row that a tap of this weight gives: one input, or one per chosen expert.
int64_t tapped(const Decoder& decoder, int index, int handle) {
  const MixtureOfExperts* mixture = mixture_of(decoder, index, handle);
  const Matrix& w = decoder.model().weights[static_cast<size_t>(handle)];
  return w.columns * (mixture ? mixture->top_k : 1);
}

int64_t matrices(const Decoder& decoder, int index, int handle) {
  const MixtureOfExperts* mixture = mixture_of(decoder, index, handle);
  return mixture ? mixture->router.rows : 1;
}

// `squares`: rows of sums for weights, one, or one per expert. `experts`: room for the chosen
// experts of each row of a mixture, or none.
void layer(Decoder& decoder, int index, Floats2& hidden, const Tokens& sequences,
           const Positions& positions, const std::vector<std::pair<int, Floats2>>& taps,
           const std::vector<std::pair<int, Doubles2>>& squares,
           const std::optional<Out<int32_t, 2>>& experts) {
  const Rows rows = rows_of(sequences, positions);
  require(index >= 0 && index < static_cast<int>(decoder.model().layers.size()), "layer index");
  require(static_cast<int>(hidden.shape(0)) == rows.count &&
              static_cast<int64_t>(hidden.shape(1)) == decoder.model().width,
          "shape of hidden");
  Taps outs;
  for (const auto& [handle, out] : taps) {
    require(handle >= 0 && handle < static_cast<int>(decoder.model().weights.size()), "tap handle");
    require(static_cast<int>(out.shape(0)) == rows.count &&
                static_cast<int64_t>(out.shape(1)) == tapped(decoder, index, handle),
            "shape of a tap");
    outs.inputs[handle] = const_cast<float*>(out.data());
  }
  for (const auto& [handle, sums] : squares) {
    require(handle >= 0 && handle < static_cast<int>(decoder.model().weights.size()), "tap handle");
    const int64_t columns = decoder.model().weights[static_cast<size_t>(handle)].columns;
    require(static_cast<int64_t>(sums.shape(0)) == matrices(decoder, index, handle) &&
                static_cast<int64_t>(sums.shape(1)) == columns,
            "shape of sums of squares");
    outs.squares[handle] = const_cast<double*>(sums.data());
  }
  if (experts) {
    const Layer& layer = decoder.model().layers[static_cast<size_t>(index)];
    const auto* mixture = std::get_if<MixtureOfExperts>(&layer.feed_forward);
    require(mixture != nullptr, "this layer has no experts");
    require(static_cast<int>(experts->shape(0)) == rows.count &&
                static_cast<int>(experts->shape(1)) == mixture->top_k,
            "shape of the experts");
    outs.experts = const_cast<int32_t*>(experts->data());
  }
  decoder.cache().check(rows.sequences, rows.positions, rows.count);
  nb::gil_scoped_release release;
  decoder.begin(rows, false);
  decoder.layer(index, rows, hidden.data(), &outs);
}

void embed(Decoder& decoder, const Tokens& tokens, Floats2& hidden) {
  require_tokens(decoder, tokens);
  require(hidden.shape(0) == tokens.shape(0) &&
              static_cast<int64_t>(hidden.shape(1)) == decoder.model().width,
          "shape of hidden");
  nb::gil_scoped_release release;
  decoder.embed(tokens.data(), static_cast<int>(tokens.shape(0)), hidden.data());
}

void head(Decoder& decoder, const In<float, 2>& hidden, Floats2& logits) {
  require(static_cast<int64_t>(hidden.shape(1)) == decoder.model().width &&
              logits.shape(0) == hidden.shape(0) &&
              static_cast<int64_t>(logits.shape(1)) == decoder.model().head.rows,
          "shapes of hidden and logits");
  nb::gil_scoped_release release;
  decoder.head(hidden.data(), static_cast<int>(hidden.shape(0)), logits.data());
}

using PageBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Copies one page out of the cache, or into it.
void copy_page(Decoder& decoder, int sequence, int group, int64_t page, PageBytes bytes,
               bool write) {
  const Cache& cache = decoder.cache();
  uint8_t* held = cache.held_page(sequence, group, page, write);
  require(static_cast<int64_t>(bytes.size()) == cache.page_bytes(group), "bytes of a page");
  uint8_t* from = write ? bytes.data() : held;
  std::copy_n(from, bytes.size(), write ? held : bytes.data());
}

void bind_decoder(nb::module_& m) {
  nb::enum_<CacheType>(m, "CacheType")
      .value("f32", CacheType::kF32)
      .value("f16", CacheType::kF16)
      .value("q8_0", CacheType::kQ8_0);
  nb::class_<Decoder>(m, "Decoder")
      .def(
          "__init__",
          [](Decoder* self, const Model& model, const std::string& isa, int threads,
             int64_t positions, int64_t pages, int batch, CacheType cache_type, bool repack) {
            require(threads >= 1 && threads <= 1024, "threads: 1 to 1024");
            require(positions >= 1 && pages >= 0 && batch >= 1,
                    "positions and batch are positive, pages 0 or more");
            new (self) Decoder(model, choose_kernels(isa), threads, positions, pages, batch,
                               cache_type, repack);
          },
          "model"_a, "isa"_a, "threads"_a, "positions"_a, "pages"_a, "batch"_a, "cache_type"_a,
          "repack"_a)
      .def("forward", &forward, "tokens"_a, "sequences"_a, "positions"_a, "outputs"_a, "logits"_a,
           "out"_a)
      .def("embed", &embed, "tokens"_a, "hidden"_a)
      .def("layer", &layer, "index"_a, "hidden"_a, "sequences"_a, "positions"_a, "taps"_a,
           "squares"_a, "experts"_a.none())
      .def("head", &head, "hidden"_a, "logits"_a)
      .def("add_gram", &add_gram_of, "x"_a, "gram"_a)
      .def("remove",
           [](Decoder& d, int sequence, int64_t from) { d.cache().remove(sequence, from); })
      .def("fork", [](Decoder& d, int source, int target,
                      int64_t length) { d.cache().fork(source, target, length); })
      .def("length", [](Decoder& d, int sequence) { return d.cache().length(sequence); })
      .def("cache_bytes", [](Decoder& d) { return d.cache().bytes(); })
      .def("tile_bytes", [](const Decoder& d) { return d.tile_bytes(); })
      .def("pages_used", [](Decoder& d) { return d.cache().pages_used(); })
      .def("restore",
           [](Decoder& d, int sequence, int64_t length, const std::vector<int64_t>& first) {
             d.cache().restore(sequence, length, first);
           })
      .def("copy_page", &copy_page, "sequence"_a, "group"_a, "page"_a, "bytes"_a, "write"_a)
      .def("pages", [](Decoder& d, int sequence) { return d.cache().pages(sequence); })
      .def("first_pages",
           [](Decoder& d, int sequence) {
             std::vector<int64_t> first;
             for (int g = 0; g < d.cache().groups(); ++g)
               first.push_back(d.cache().first_page(sequence, g));
             return first;
           })
      .def("page_bytes",
           [](Decoder& d) {
             std::vector<int64_t> bytes;
             for (int g = 0; g < d.cache().groups(); ++g) bytes.push_back(d.cache().page_bytes(g));
             return bytes;
           })
      .def("keeps_from", [](Decoder& d, int sequence) { return d.cache().keeps_from(sequence); })
      .def_prop_ro("isa", [](const Decoder& d) { return d.kernels().isa; })
      .def_prop_ro("threads", [](const Decoder& d) { return d.threads(); });
}

}  // namespace
}  // namespace trit
