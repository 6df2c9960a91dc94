#pragma once

// How a call's arguments come from Python: by name, one at a time, into the fields of its struct.
//
// Tensors arrive whole and are read through their own attributes, so that no version of torch is
// compiled in (view.h). Each is checked against the sizes, dtype and layout that its field means;
// marfast/ops has told the user long before, so an error here is a defect of ours, and no kernel
// reads past a buffer because of it. Only whether its memory is still there is asked here alone.
// FIELD (marfast/ops.h) and ROWS take a field's name and the field itself from one word: two that
// are swapped differ in name, and a name that nobody asked for is an error.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/names.h"
#include "bindings/view.h"
#include "marfast/ops.h"

namespace marfast::wire {

namespace py = pybind11;

#define ROWS(name) #name, a.name, a.name##_stride

// A call's arguments by name, each taken once.
class Given {
 public:
  Given(const char* op, PyObject* const* values, PyObject* names) : op_(op) {
    count_ = names == nullptr ? 0 : static_cast<int>(PyTuple_GET_SIZE(names));
    if (count_ > kMost) throw std::invalid_argument(std::string(op) + ": too many arguments");
    for (int i = 0; i < count_; ++i) {
      const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names, i));
      if (name == nullptr) throw py::error_already_set();
      arguments_[i] = {name, values[i], false, false, {}};
    }
  }

  // Sizes that others are checked against.
  void sizes(const char* name, std::initializer_list<int64_t*> sizes) {
    const View& view = view_of(find(name));
    expect(view.dims == static_cast<int>(sizes.size()), name, "has other dimensions");
    int i = 0;
    for (int64_t* size : sizes) *size = view.sizes[i++];
  }
  DType dtype(const char* name) { return view_of(find(name)).dtype(); }
  bool has(const char* name) {  // or None, which is taken with that
    Argument& argument = find(name);
    argument.taken = argument.value == Py_None;
    return !argument.taken;
  }

  // Rows at any stride, of elements side by side. `dtype` is that of fields that point to void.
  template <class T>
  void rows(const char* name, T*& data, int64_t& stride, std::initializer_list<int64_t> sizes,
            DType dtype = DType::f32) {
    const View& view = checked<T>(name, sizes, dtype, 1);
    data = static_cast<T*>(view.data);
    stride = view.strides[0];
    if (view.sizes[0] == 1) stride = view.count();  // a single row's is arbitrary
  }
  template <class T>
  void rows(const char* name, T*& data, int64_t& stride, int64_t rows, int64_t columns,
            DType dtype = DType::f32) {
    this->rows(name, data, stride, {rows, columns}, dtype);
  }
  template <class T>
  void dense(const char* name, T*& data, std::initializer_list<int64_t> sizes,
             DType dtype = DType::f32) {
    data = static_cast<T*>(checked<T>(name, sizes, dtype, 0).data);
  }
  // Room for `least` elements, of any shape.
  template <class T>
  void buffer(const char* name, T*& data, int64_t least, DType dtype = DType::f32) {
    const View& view = this->view(name);
    expect(points_to<T>(view.element, dtype), name, "has another dtype");
    expect(view.dense() && view.count() >= least, name, "is too small, or not contiguous");
    data = static_cast<T*>(view.data);
  }
  const View& view(const char* name) {
    Argument& argument = find(name);
    argument.taken = true;
    return view_of(argument);
  }
  std::vector<View> views(const char* name) {
    std::vector<View> found;
    for (const py::handle tensor : take(name)) {
      found.push_back(wire::view_of(tensor));
      expect_backed(found.back(), name);
    }
    return found;
  }

  template <class T>
  void value(const char* name, T& field) {
    if constexpr (std::is_same_v<T, DType>) {
      field = static_cast<DType>(element_of(take(name).ptr()));
    } else {
      field = take(name).template cast<T>();
    }
  }
  // A struct whose `fields` are the attributes of a Python object.
  template <class Struct>
  void record(const char* name, Struct& record) {
    const py::handle from = take(name);
    fields(record, [from](const char* field, auto& value) {
      using Value = std::decay_t<decltype(value)>;
      const py::object found = from.attr(field);
      if constexpr (std::is_same_v<Value, const char*>) {
        value = PyUnicode_AsUTF8(found.ptr());  // the record's own, while the call lasts
      } else if constexpr (std::is_enum_v<Value>) {
        value = named<Value>(PyUnicode_AsUTF8(found.ptr()));
      } else {
        value = found.cast<Value>();
      }
    });
  }

  // To be called before anything is run: an argument that no field took is an error.
  void finish() const {
    for (int i = 0; i < count_; ++i) {
      expect(arguments_[i].taken, arguments_[i].name, "is no argument of its own");
    }
  }
  void expect(bool holds, const char* name, const char* otherwise) const {
    if (!holds) throw std::invalid_argument(std::string(op_) + ": " + name + " " + otherwise);
  }

 private:
  static constexpr int kMost = 32;
  struct Argument {
    const char* name;
    PyObject* value;
    bool taken, viewed;
    View view;
  };

  Argument& find(const char* name) {
    for (int i = 0; i < count_; ++i, ++next_) {  // callers name them about in our order
      if (next_ >= count_) next_ = 0;
      if (std::strcmp(arguments_[next_].name, name) == 0) return arguments_[next_];
    }
    throw std::invalid_argument(std::string(op_) + ": " + name + " is missing");
  }
  py::handle take(const char* name) {
    Argument& argument = find(name);
    argument.taken = true;
    return argument.value;
  }
  const View& view_of(Argument& argument) const {
    if (!argument.viewed) {
      argument.view = wire::view_of(argument.value);
      expect_backed(argument.view, argument.name);
      argument.viewed = true;
    }
    return argument.view;
  }
  void expect_backed(const View& view, const char* name) const {
    expect(view.backed, name, "has lost its memory: its storage was freed or made smaller");
  }

  template <class T>
  const View& checked(const char* name, std::initializer_list<int64_t> sizes, DType dtype,
                      int first_dense) {
    const View& view = this->view(name);
    bool same = view.dims == static_cast<int>(sizes.size());
    int i = 0;
    for (const int64_t size : sizes) same = same && view.sizes[i++] == size;
    expect(same, name, "has another shape");
    expect(points_to<T>(view.element, dtype), name, "has another dtype");
    expect(view.dense(first_dense), name, "has elements apart");
    return view;
  }

  const char* op_;
  int count_, next_ = 0;
  Argument arguments_[kMost];
};

// Runs without the GIL -> None.
template <class Function>
py::object unlocked(Function function) {
  {
    const py::gil_scoped_release released;
    function();
  }
  return py::none();
}

// m.name(**arguments) -> run(given). Not by pybind11's own dispatch, which costs as much as a small
// kernel.
using Run = std::function<py::object(Given&)>;

inline void def(py::module_& m, const char* name, Run run) {
  struct Function {
    PyMethodDef method;
    Run run;

    static PyObject* call(PyObject* self, PyObject* const* values, Py_ssize_t places,
                          PyObject* names) {
      const auto* function = static_cast<Function*>(PyCapsule_GetPointer(self, nullptr));
      try {
        if (places != 0) throw py::type_error("arguments are given by name");
        Given given(function->method.ml_name, values, names);
        return function->run(given).release().ptr();
      } catch (py::error_already_set& error) {
        error.restore();
      } catch (const py::type_error& error) {
        PyErr_SetString(PyExc_TypeError, error.what());
      } catch (const py::cast_error& error) {
        PyErr_SetString(PyExc_TypeError, error.what());
      } catch (const std::invalid_argument& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
      } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
      }
      return nullptr;
    }
  };
  // As old as the module, which is never unloaded.
  auto* function = new Function{{name, nullptr, METH_FASTCALL | METH_KEYWORDS, nullptr}, run};
  function->method.ml_meth =
      reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&Function::call));
  const py::capsule self(function);
  m.attr(name) =
      py::reinterpret_steal<py::object>(PyCFunction_NewEx(&function->method, self.ptr(), nullptr));
}

// A record for Python, as a dictionary.
template <class Struct>
py::dict record_of(Struct record) {
  py::dict found;
  fields(record, [&found](const char* field, auto& value) { found[field] = value; });
  return found;
}

}  // namespace marfast::wire
