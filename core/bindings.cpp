// The module trit._core. Only this file and the bindings_*.h that it includes know Python.
//
// Arrays are checked here, where bytes enter; the kernels trust them. Errors become ValueError or
// IndexError, which engine.py turns into what the user reads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cstring>

#include "bindings_arrays.h"
#include "bindings_decoder.h"
#include "bindings_gptq.h"
#include "bindings_tokenizer.h"
#include "decoder.h"
#include "dispatch.h"
#include "machine.h"
#include "sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace trit {
namespace {

const Format& format_named(const Kernels& kernels, const std::string& name) {
  const Format* format = find_format(kernels, name);
  require(format != nullptr, "no format named '" + name + "'");
  return *format;
}

// Checks that each row of `data` holds `columns` weights.
void require_rows(const Format& format, const In<uint8_t, 2>& data, int64_t columns) {
  require(columns > 0 && columns % format.block_weights == 0,
          std::string(format.name) + " needs columns in multiples of " +
              std::to_string(format.block_weights));
  require(
      static_cast<int64_t>(data.shape(1)) == columns / format.block_weights * format.block_bytes,
      "row bytes do not match the columns");
}

auto decode(const std::string& name, const In<uint8_t, 2>& data, int64_t columns,
            const std::string& isa) {
  const Format& format = format_named(choose_kernels(isa), name);
  require_rows(format, data, columns);
  Fresh<float> out({data.shape(0), static_cast<size_t>(columns)});
  {
    nb::gil_scoped_release release;
    for (size_t row = 0; row < data.shape(0); ++row) {
      format.decode(data.data() + row * data.shape(1), columns,
                    out.data + row * static_cast<size_t>(columns));
    }
  }
  return out.take();
}

nb::tuple unpack(const std::string& name, const In<uint8_t, 2>& blocks, const std::string& isa) {
  const Format& format = format_named(choose_kernels(isa), name);
  require(format.unpack != nullptr, name + " has no unpack");
  require(static_cast<int>(blocks.shape(1)) == format.block_bytes, "bytes of a block");
  const size_t n = blocks.shape(0);
  const size_t weights = static_cast<size_t>(format.block_weights);
  Fresh<uint8_t> codes({n, weights});
  Fresh<int16_t> sub_scale({n, 16});
  Fresh<int16_t> sub_min({n, 16});
  Fresh<uint16_t> d({n});
  Fresh<uint16_t> dmin({n});
  for (size_t i = 0; i < n; ++i) {
    Block block{};
    format.unpack(blocks.data() + i * blocks.shape(1), block);
    std::memcpy(codes.data + i * weights, block.codes, weights);
    std::memcpy(sub_scale.data + i * 16, block.sub_scale, sizeof block.sub_scale);
    std::memcpy(sub_min.data + i * 16, block.sub_min, sizeof block.sub_min);
    d.data[i] = block.d;
    dmin.data[i] = block.dmin;
  }
  return nb::make_tuple(codes.take(), sub_scale.take(), sub_min.take(), d.take(), dmin.take());
}

auto pack(const std::string& name, const In<uint8_t, 2>& codes, const In<int16_t, 2>& sub_scale,
          const In<int16_t, 2>& sub_min, const In<uint16_t, 1>& d, const In<uint16_t, 1>& dmin,
          const std::string& isa) {
  const Format& format = format_named(choose_kernels(isa), name);
  require(format.pack != nullptr, name + " has no pack");
  const size_t n = codes.shape(0);
  const size_t weights = static_cast<size_t>(format.block_weights);
  require(codes.shape(1) == weights && sub_scale.shape(0) == n && sub_scale.shape(1) == 16 &&
              sub_min.shape(0) == n && sub_min.shape(1) == 16 && d.shape(0) == n &&
              dmin.shape(0) == n,
          "shapes of an unpacked block");
  const size_t bytes = static_cast<size_t>(format.block_bytes);
  Fresh<uint8_t> out({n, bytes});
  for (size_t i = 0; i < n; ++i) {
    Block block{};
    std::memcpy(block.codes, codes.data() + i * weights, weights);
    std::memcpy(block.sub_scale, sub_scale.data() + i * 16, sizeof block.sub_scale);
    std::memcpy(block.sub_min, sub_min.data() + i * 16, sizeof block.sub_min);
    block.d = d.data()[i];
    block.dmin = dmin.data()[i];
    format.pack(block, out.data + i * bytes);
  }
  return out.take();
}

nb::tuple panel(const std::string& name, const In<uint8_t, 2>& data, int columns,
                const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  const Format& format = format_named(kernels, name);
  require(format.panel != nullptr, name + " has no panel");
  require(data.shape(0) == kTileRows && columns > 0 && columns <= kChunkColumns &&
              columns % kActivationBlock == 0,
          "a panel has 16 rows and up to 256 columns");
  require_rows(format, data, columns);
  const Matrix rows{&format, data.data(), static_cast<int64_t>(data.shape(1)), kTileRows, columns};
  std::vector<uint8_t> tile(kMaxTileBytes);
  kernels.pack(rows, 0, tile.data());
  Panel out{};
  format.panel(tile.data(), columns, out);
  const size_t groups = static_cast<size_t>(columns / format.group);
  Fresh<uint8_t> codes({static_cast<size_t>(columns / 4), 16, 4});
  Fresh<float> scales({groups, 16});
  Fresh<float> mins({groups, 16});
  std::memcpy(codes.data, out.codes, static_cast<size_t>(columns) * kTileRows);
  std::memcpy(scales.data, out.scales, groups * sizeof out.scales[0]);
  if (format.has_mins) std::memcpy(mins.data, out.mins, groups * sizeof out.mins[0]);
  return nb::make_tuple(codes.take(), scales.take(), mins.take());
}

auto quantize(const std::string& name, const In<float, 2>& weights,
              const std::optional<In<float, 1>>& importance, int threads, const std::string& isa) {
  const Kernels& kernels = choose_kernels(isa);
  const Format& format = format_named(kernels, name);
  const int64_t rows = static_cast<int64_t>(weights.shape(0));
  const int64_t columns = static_cast<int64_t>(weights.shape(1));
  require(columns > 0 && columns % format.block_weights == 0,
          name + " needs columns in multiples of " + std::to_string(format.block_weights));
  require(threads >= 1 && threads <= 1024, "threads: 1 to 1024");
  require(!importance || static_cast<int64_t>(importance->shape(0)) == columns,
          "importance has one weight per column");
  const float* weight_of = importance ? importance->data() : nullptr;
  const int64_t row_bytes = columns / format.block_weights * format.block_bytes;
  Fresh<uint8_t> out({static_cast<size_t>(rows), static_cast<size_t>(row_bytes)});
  std::atomic<bool> ok{true};
  {
    nb::gil_scoped_release release;
    Threads pool(threads);
    constexpr int64_t kSlab = 16;  // rows per task
    pool.run((rows + kSlab - 1) / kSlab, 1, [&](int64_t task, int) {
      const int64_t first = task * kSlab;
      const int64_t count = std::min(kSlab, rows - first);
      if (!kernels.quantize_rows(format, weights.data() + first * columns, count, columns,
                                 weight_of, out.data + first * row_bytes)) {
        ok = false;
      }
    });
  }
  auto result = out.take();
  require(ok, name + " cannot be written");
  return result;
}

nb::list formats() {
  nb::list rows;
  const FormatTable& table = *choose_kernels("scalar").formats;
  for (int i = 0; i < table.count; ++i) {
    const Format& f = *table.formats[i];
    nb::dict row;
    row["name"] = f.name;
    row["ggml_type"] = f.ggml_type;
    row["block_weights"] = f.block_weights;
    row["block_bytes"] = f.block_bytes;
    row["integer"] = f.panel != nullptr;
    row["code_bits"] = f.code_bits;
    row["adds"] = can_add(f);
    row["writable"] = f.pack != nullptr;
    rows.append(row);
  }
  return rows;
}

nb::list isas() {
  nb::list names;
  for (const Kernels* table : available_kernels()) names.append(table->isa);
  return names;
}

std::vector<float> floats(const In<float, 1>& array) {
  return {array.data(), array.data() + array.shape(0)};
}

// Handle of a weight; the caller keeps the array alive as long as the model. adds: its products
// are to be made by additions.
int add_weight(Model& model, const std::string& isa, const std::string& name,
               const In<uint8_t, 2>& data, int64_t columns, bool mapped, bool adds) {
  const Format& format = format_named(choose_kernels(isa), name);
  require_rows(format, data, columns);
  require(!adds || can_add(format), name + " has no products by additions");
  Matrix w{&format, data.data(), static_cast<int64_t>(data.shape(1)),
           static_cast<int64_t>(data.shape(0)), columns};
  w.mapped = mapped;
  w.adds = adds;
  model.weights.push_back(w);
  return static_cast<int>(model.weights.size()) - 1;
}

// The two limits of speed.py, in bytes and operations per second; 0 where the sum came out wrong.
double read_bandwidth_of(int threads, int64_t bytes) {
  require(threads >= 1 && threads <= 1024 && bytes > 0, "threads: 1 to 1024; bytes are positive");
  nb::gil_scoped_release release;
  Threads pool(threads);
  return read_bandwidth(pool, bytes);
}

double int8_rate_of(int threads, const std::string& isa) {
  require(threads >= 1 && threads <= 1024, "threads: 1 to 1024");
  const Kernels& kernels = choose_kernels(isa);
  nb::gil_scoped_release release;
  Threads pool(threads);
  return int8_rate(pool, kernels);
}

// The greatest of the logits and the ids of the `count` greatest, none if any is not a number.
nb::tuple greatest_of(const In<float, 1>& logits, int64_t count) {
  const int64_t size = static_cast<int64_t>(logits.shape(0));
  require(count >= 1 && count <= size, "count: 1 to the number of logits");
  Fresh<int64_t> ids({static_cast<size_t>(count)});
  const float top = greatest(logits.data(), size, count, ids.data);
  if (top != top) ids.shape[0] = 0;
  return nb::make_tuple(top, ids.take());
}

// The greatest of the logits, and the token drawn of them unless that is not finite.
nb::tuple draw_of(const In<float, 1>& logits, int64_t top_k, double top_p, double least,
                  double temperature, double uniform) {
  const int64_t size = static_cast<int64_t>(logits.shape(0));
  require(top_k >= 1 && top_k <= size, "top_k: 1 to the number of logits");
  require(temperature > 0 && least <= 0 && uniform >= 0 && uniform < 1, "settings of a draw");
  const Drawn drawn = draw(logits.data(), size, {top_k, top_p, least, temperature}, uniform);
  return nb::make_tuple(drawn.top, drawn.token);
}

void bind_model(nb::module_& m) {
  nb::enum_<Activation>(m, "Activation")
      .value("silu", Activation::kSilu)
      .value("gelu", Activation::kGelu)
      .value("relu2", Activation::kRelu2);
  nb::class_<Norm>(m, "Norm").def(
      "__init__",
      [](Norm* self, const In<float, 1>& weight, float eps) {
        new (self) Norm{floats(weight), eps};
      },
      "weight"_a, "eps"_a);
  nb::class_<Linear>(m, "Linear")
      .def(
          "__init__",
          [](Linear* self, int weight, int64_t row_start, int64_t rows,
             const std::optional<In<float, 1>>& bias) {
            new (self) Linear{weight, row_start, rows, bias ? floats(*bias) : std::vector<float>{}};
          },
          "weight"_a, "row_start"_a, "rows"_a, "bias"_a.none() = nb::none());
  nb::class_<Rope>(m, "Rope").def(
      "__init__",
      [](Rope* self, const In<float, 1>& inv_freq, bool adjacent, float magnitude) {
        new (self) Rope{floats(inv_freq), adjacent, magnitude};
      },
      "inv_freq"_a, "adjacent"_a, "magnitude"_a);
  nb::class_<Attention>(m, "Attention")
      .def(nb::init<>())
      .def_rw("q", &Attention::q)
      .def_rw("k", &Attention::k)
      .def_rw("v", &Attention::v)
      .def_rw("output", &Attention::output)
      .def_rw("heads", &Attention::heads)
      .def_rw("kv_heads", &Attention::kv_heads)
      .def_rw("head_dim", &Attention::head_dim)
      .def_rw("scale", &Attention::scale)
      .def_rw("rope", &Attention::rope)
      .def_rw("q_norm", &Attention::q_norm)
      .def_rw("k_norm", &Attention::k_norm)
      .def_rw("sub_norm", &Attention::sub_norm)
      .def_rw("window", &Attention::window)
      .def_rw("soft_cap", &Attention::soft_cap)
      .def_rw("sinks", &Attention::sinks);
  nb::class_<FeedForward>(m, "FeedForward")
      .def(nb::init<>())
      .def_rw("gate", &FeedForward::gate)
      .def_rw("up", &FeedForward::up)
      .def_rw("down", &FeedForward::down)
      .def_rw("activation", &FeedForward::activation)
      .def_rw("sub_norm", &FeedForward::sub_norm);
  nb::class_<MixtureOfExperts>(m, "MixtureOfExperts")
      .def(nb::init<>())
      .def_rw("router", &MixtureOfExperts::router)
      .def_rw("gate", &MixtureOfExperts::gate)
      .def_rw("up", &MixtureOfExperts::up)
      .def_rw("down", &MixtureOfExperts::down)
      .def_rw("top_k", &MixtureOfExperts::top_k)
      .def_rw("activation", &MixtureOfExperts::activation)
      .def_rw("renormalize", &MixtureOfExperts::renormalize)
      .def_rw("scale", &MixtureOfExperts::scale)
      .def_rw("shared", &MixtureOfExperts::shared)
      .def_rw("shared_gate", &MixtureOfExperts::shared_gate);
  nb::class_<Layer>(m, "Layer")
      .def(nb::init<>())
      .def_rw("mixer", &Layer::mixer)
      .def_rw("feed_forward", &Layer::feed_forward)
      .def_rw("mixer_norm", &Layer::mixer_norm)
      .def_rw("mixer_post_norm", &Layer::mixer_post_norm)
      .def_rw("feed_forward_norm", &Layer::feed_forward_norm)
      .def_rw("feed_forward_post_norm", &Layer::feed_forward_post_norm);
  nb::class_<Model>(m, "Model")
      .def(nb::init<>())
      .def("add_weight", &add_weight, "isa"_a, "format"_a, "data"_a, "columns"_a,
           "mapped"_a = false, "adds"_a = false)
      .def("add_rope",
           [](Model& model, const Rope& rope) {
             model.ropes.push_back(rope);
             return static_cast<int>(model.ropes.size()) - 1;
           })
      .def("add_layer", [](Model& model, const Layer& layer) { model.layers.push_back(layer); })
      .def_rw("width", &Model::width)
      .def_rw("embedding", &Model::embedding)
      .def_rw("embedding_scale", &Model::embedding_scale)
      .def_rw("output_norm", &Model::output_norm)
      .def_rw("head", &Model::head)
      .def_rw("head_scale", &Model::head_scale)
      .def_rw("head_soft_cap", &Model::head_soft_cap);
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "The compiled core of trit; use it through trit.engine.";
  m.attr("page_positions") = kPage;
  m.attr("moment_block") = kMomentBlock;
  nb::exception<CacheFull>(m, "CacheFullError");
  nb::exception<WindowDropped>(m, "WindowDroppedError");
  m.def("isas", &isas, "Instruction sets this machine has, the best first.");
  m.def("formats", &formats);
  m.def("decode", &decode, "format"_a, "data"_a, "columns"_a, "isa"_a = "");
  m.def("unpack", &unpack, "format"_a, "blocks"_a, "isa"_a = "");
  m.def("pack", &pack, "format"_a, "codes"_a, "sub_scale"_a, "sub_min"_a, "d"_a, "dmin"_a,
        "isa"_a = "");
  m.def("panel", &panel, "format"_a, "data"_a, "columns"_a, "isa"_a = "");
  m.def("quantize", &quantize, "format"_a, "weights"_a, "importance"_a.none(), "threads"_a,
        "isa"_a = "");
  m.def("read_bandwidth", &read_bandwidth_of, "threads"_a, "bytes"_a);
  m.def("int8_rate", &int8_rate_of, "threads"_a, "isa"_a = "");
  m.def("draw", &draw_of, "logits"_a, "top_k"_a, "top_p"_a, "least"_a, "temperature"_a,
        "uniform"_a);
  m.def("greatest", &greatest_of, "logits"_a, "count"_a);
  bind_model(m);
  bind_decoder(m);
  bind_tokenizer(m);
  bind_gptq(m);
}

}  // namespace trit
