#pragma once

// A tensor of torch's, read through its own attributes (data_ptr, shape, stride, dtype, its
// storage), so that no version of torch is compiled in.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "marfast/types.h"

namespace marfast::wire {

namespace py = pybind11;

enum class Element { f32, bf16, f16, i64 };  // DType's, and int64

constexpr bool is(Element element, DType dtype) {
  return static_cast<int>(element) == static_cast<int>(dtype);
}

constexpr int64_t size_of(Element element) {
  return element == Element::i64 ? 8 : element == Element::f32 ? 4 : 2;
}

// A tensor as C++ reads it; strides count elements.
struct View {
  static constexpr int kMostDims = 5;
  void* data;
  bool backed;  // whether all elements lie in the storage, which can be resized under a tensor
  int dims;
  int64_t sizes[kMostDims];
  int64_t strides[kMostDims];
  Element element;

  DType dtype() const {
    if (element == Element::i64) throw std::invalid_argument("a tensor of int64 has no dtype here");
    return static_cast<DType>(element);
  }

  int64_t count() const {
    int64_t product = 1;
    for (int i = 0; i < dims; ++i) product *= sizes[i];
    return product;
  }
  // Elements from the first to the last, with those between them; of a view that has any.
  int64_t extent() const {
    int64_t last = 0;
    for (int i = 0; i < dims; ++i) last += (sizes[i] - 1) * strides[i];
    return last + 1;
  }
  // Whether the elements of the dimensions from `first` on lie side by side.
  bool dense(int first = 0) const {
    int64_t expected = 1;
    for (int i = dims - 1; i >= first; --i) {
      if (sizes[i] != 1 && strides[i] != expected) return count() == 0;
      expected *= sizes[i];
    }
    return true;
  }
};

inline Element element_of(PyObject* dtype) {
  static const std::vector<PyObject*> known = [] {
    const py::module_ torch = py::module_::import("torch");
    std::vector<PyObject*> dtypes;
    for (const char* name : {"float32", "bfloat16", "float16", "int64"}) {
      dtypes.push_back(py::object(torch.attr(name)).release().ptr());
    }
    return dtypes;
  }();
  for (size_t i = 0; i < known.size(); ++i) {
    if (known[i] == dtype) return static_cast<Element>(i);
  }
  throw std::invalid_argument("dtype is not one that kernels know");
}

// torch.Tensor's own attributes and methods, looked up once.
class Attribute {
 public:
  explicit Attribute(const char* name)
      : found_(py::object(py::module_::import("torch").attr("Tensor").attr(name)).release().ptr()) {
  }
  py::object of(py::handle tensor) const {  // get
    return own(Py_TYPE(found_)->tp_descr_get(found_, tensor.ptr(), nullptr));
  }
  py::object operator()(py::handle tensor) const {  // call
    PyObject* const self = tensor.ptr();
    return own(PyObject_Vectorcall(found_, &self, 1, nullptr));
  }

 private:
  static py::object own(PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
  }
  PyObject* found_;
};

inline View view_of(py::handle tensor) {
  static const Attribute dtype("dtype"), shape("shape"), stride("stride"), data_ptr("data_ptr"),
      storage("untyped_storage"), storage_offset("storage_offset");
  View view{};
  view.element = element_of(dtype.of(tensor).ptr());
  const py::object sizes = shape.of(tensor), strides = stride(tensor);
  view.dims = static_cast<int>(PyTuple_GET_SIZE(sizes.ptr()));
  if (view.dims > View::kMostDims) throw std::invalid_argument("a tensor has too many dimensions");
  for (int i = 0; i < view.dims; ++i) {
    view.sizes[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), i));
    view.strides[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), i));
  }
  view.data = PyLong_AsVoidPtr(data_ptr(tensor).ptr());
  const int64_t held = PyObject_Size(storage(tensor).ptr());
  const int64_t first = PyLong_AsLongLong(storage_offset(tensor).ptr());
  view.backed = view.count() == 0 || (first + view.extent()) * size_of(view.element) <= held;
  if (PyErr_Occurred()) throw py::error_already_set();
  return view;
}

// Whether a field of type T* may point to such elements; `dtype` says it where T is void.
template <class T>
constexpr bool points_to(Element element, DType dtype) {
  using Pointed = std::remove_const_t<T>;
  if constexpr (std::is_void_v<Pointed>) {
    return is(element, dtype);
  } else if constexpr (std::is_same_v<Pointed, float>) {
    return element == Element::f32;
  } else {
    static_assert(sizeof(Pointed) == sizeof(int64_t), "fields point to float, int64 or void");
    return element == Element::i64;
  }
}

}  // namespace marfast::wire
