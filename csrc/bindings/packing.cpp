// Weights packed, and how many floats packed weights and workspaces take.

#include <pybind11/pybind11.h>

#include "bindings/modules.h"
#include "bindings/wire.h"
#include "cpu/attention_scratch.h"
#include "cpu/head_workspace.h"
#include "cpu/packed_head.h"

namespace marfast {

using wire::Given;

void def_packing(pybind11::module_& m) {
  wire::def(m, "ddpm_sample_workspace", [](Given& given) {
    DdpmSample a{};
    given.record(FIELD(shape));
    given.record(FIELD(spec));
    given.record(FIELD(options));
    given.value(FIELD(tokens));
    given.value(FIELD(group));
    given.expect(a.group > 0, "group", "is not positive");
    given.value(FIELD(steps));
    given.value(FIELD(chunk));
    given.finish();
    return pybind11::int_(sample_workspace(a));
  });
  wire::def(m, "attention_scratch", [](Given& given) {
    int64_t length = 0, head_dim = 0;
    given.value("length", length);
    given.value("head_dim", head_dim);
    given.finish();
    return pybind11::int_(attention_scratch(length, head_dim));
  });
  wire::def(m, "denoise_workspace", [](Given& given) {
    Denoise a{};
    given.record(FIELD(shape));
    given.record(FIELD(spec));
    given.value(FIELD(rows));
    given.finish();
    return pybind11::int_(HeadWorkspace(a.shape, a.spec, a.rows, a.rows, a.rows, nullptr).size);
  });
  struct Head {
    HeadShape shape;
    HeadSpec spec;
    DType dtype;  // of what is packed
    float* packed;

    int64_t size() const { return PackedHead(shape, spec, dtype, nullptr).size(); }
  };
  wire::def(m, "packed_head_size", [](Given& given) {
    Head a{};
    given.record(FIELD(shape));
    given.record(FIELD(spec));
    given.value(FIELD(dtype));
    given.finish();
    return pybind11::int_(a.size());
  });
  wire::def(m, "pack_head", [](Given& given) {
    Head a{};
    given.record(FIELD(shape));
    given.record(FIELD(spec));
    given.value(FIELD(dtype));
    const std::vector<wire::View> weights = given.views("weights");
    given.expect(static_cast<int64_t>(weights.size()) == head_tensors(a.shape, a.spec), "weights",
                 "are not a head's");
    std::vector<const void*> tensors;
    for (const wire::View& weight : weights) {
      given.expect(weight.dense() && weight.element == weights.front().element, "weights",
                   "have elements apart, or several dtypes");
      tensors.push_back(weight.data);
    }
    given.buffer(FIELD(packed), a.size());
    given.finish();
    const DType from = weights.front().dtype();
    return wire::unlocked(
        [&] { pack_head(a.shape, a.spec, a.dtype, from, tensors.data(), a.packed); });
  });
  struct Layer {
    int64_t inputs, outputs;
    DType dtype;  // of what is packed
    const void *weight, *bias;
    float* packed;

    int64_t size() const { return packed_linear_size(inputs, outputs, dtype); }
  };
  wire::def(m, "packed_linear_size", [](Given& given) {
    Layer a{};
    given.value(FIELD(inputs));
    given.value(FIELD(outputs));
    given.value(FIELD(dtype));
    given.finish();
    return pybind11::int_(a.size());
  });
  wire::def(m, "pack_linear", [](Given& given) {
    Layer a{};
    given.sizes("weight", {&a.outputs, &a.inputs});
    given.value(FIELD(dtype));
    const DType from = given.dtype("weight");
    given.dense(FIELD(weight), {a.outputs, a.inputs}, from);
    given.dense(FIELD(bias), {a.outputs}, from);
    given.buffer(FIELD(packed), a.size());
    given.finish();
    return wire::unlocked(
        [&] { pack_linear(a.inputs, a.outputs, a.dtype, from, a.weight, a.bias, a.packed); });
  });
}

}  // namespace marfast
