// Python's view of tokenizer.h; a part of bindings.cpp, which alone includes it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "tokenizer.h"

namespace nb = nanobind;

namespace {

using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntArray = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

trit::Tokenizer* make_tokenizer(const ByteArray& tokens, size_t count,
                                const std::optional<IntArray>& types,
                                const std::optional<FloatArray>& scores,
                                const std::optional<ByteArray>& merges, size_t merge_count,
                                std::vector<std::string> splits, bool ignore_merges,
                                bool space_prefix) {
  if ((types && types->size() != count) || (scores && scores->size() != count))
    throw std::invalid_argument("tokenizer.ggml.tokens: scores and types need one entry per token");
  if (!scores && !merges)
    throw std::invalid_argument("tokenizer.ggml.merges: neither merges nor scores");
  trit::TokenizerSource source;
  source.tokens = {tokens.data(), tokens.size(), count};
  if (types) source.types = types->data();
  if (scores) source.scores = scores->data();
  if (merges) source.merges = {merges->data(), merges->size(), merge_count};
  source.splits = std::move(splits);
  source.ignore_merges = ignore_merges;
  source.space_prefix = space_prefix;
  nb::gil_scoped_release release;
  return new trit::Tokenizer(source);
}

void set_specials(trit::Tokenizer& self, const IntArray& ids, const ByteArray& flags) {
  if (ids.size() != flags.size()) throw std::invalid_argument("one flag per special token");
  std::vector<trit::Special> specials;
  specials.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) specials.push_back({ids.data()[i], flags.data()[i]});
  self.set_specials(specials);
}

void bind_tokenizer(nb::module_& m) {
  nb::class_<trit::Tokenizer>(m, "Tokenizer")
      .def(nb::new_(&make_tokenizer), nb::arg("tokens"), nb::arg("count"), nb::arg("types").none(),
           nb::arg("scores").none(), nb::arg("merges").none(), nb::arg("merge_count"),
           nb::arg("splits"), nb::arg("ignore_merges"), nb::arg("space_prefix"))
      .def("set_specials", &set_specials, nb::arg("ids"), nb::arg("flags"))
      .def(
          "encode",
          [](const trit::Tokenizer& self, const nb::bytes& text, bool parse_special,
             const std::vector<int64_t>& breaks) {
            const std::string_view view(text.c_str(), text.size());
            nb::gil_scoped_release release;
            return self.encode(view, parse_special, breaks);
          },
          nb::arg("text"), nb::arg("parse_special"), nb::arg("breaks") = std::vector<int64_t>{})
      .def(
          "mark_starts",
          [](const trit::Tokenizer& self, const nb::bytes& text) {
            const std::string_view view(text.c_str(), text.size());
            nb::gil_scoped_release release;
            return self.mark_starts(view);
          },
          nb::arg("text"))
      .def(
          "decode",
          [](const trit::Tokenizer& self, const std::vector<int32_t>& ids, bool skip_special,
             bool strip_prefix) {
            const std::string out = self.decode(ids, skip_special, strip_prefix);
            return nb::bytes(out.data(), out.size());
          },
          nb::arg("ids"), nb::arg("skip_special"), nb::arg("strip_prefix"))
      .def(
          "find",
          [](const trit::Tokenizer& self, const nb::bytes& text) {
            return self.vocabulary().find({text.c_str(), text.size()});
          },
          nb::arg("text"))
      .def(
          "text",
          [](const trit::Tokenizer& self, int32_t id) {
            if (id < 0 || static_cast<size_t>(id) >= self.vocabulary().size())
              throw std::out_of_range("token " + std::to_string(id));
            const std::string_view text = self.vocabulary().text(id);
            return nb::bytes(text.data(), text.size());
          },
          nb::arg("id"))
      .def_prop_ro("size", [](const trit::Tokenizer& self) { return self.vocabulary().size(); });
}

}  // namespace
