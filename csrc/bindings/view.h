#pragma once

// A tensor of torch's, read through its own attributes (data_ptr, shape, stride, dtype), so that no
// version of torch is compiled in.

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

// A tensor as C++ reads it; strides count elements.
struct View {
  static constexpr int kMostDims = 5;
  void* data;
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

inline View view_of(py::handle tensor) {
  static PyObject* const names[] = {
      PyUnicode_InternFromString("data_ptr"), PyUnicode_InternFromString("shape"),
      PyUnicode_InternFromString("stride"), PyUnicode_InternFromString("dtype")};
  const auto own = [](PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
  };
  View view{};
  view.element = element_of(own(PyObject_GetAttr(tensor.ptr(), names[3])).ptr());
  const py::object sizes = own(PyObject_GetAttr(tensor.ptr(), names[1]));
  const py::object strides = own(PyObject_CallMethodNoArgs(tensor.ptr(), names[2]));
  view.dims = static_cast<int>(PyTuple_GET_SIZE(sizes.ptr()));
  if (view.dims > View::kMostDims) throw std::invalid_argument("a tensor has too many dimensions");
  for (int i = 0; i < view.dims; ++i) {
    view.sizes[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), i));
    view.strides[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), i));
  }
  const py::object data = own(PyObject_CallMethodNoArgs(tensor.ptr(), names[0]));
  view.data = PyLong_AsVoidPtr(data.ptr());
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
