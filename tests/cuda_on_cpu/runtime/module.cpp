// module.cpp -- the runtime as a Python module: loads compiled kernels, registers arrays, calls launchers.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "state.h"

namespace py = pybind11;
using executor::state;

namespace {

// As device/bind.h writes it.
struct Launcher {
  const char *name, *parameters;
  const char* const* types;
  int (*call)(const uint64_t* slots);
};

// {launcher: (address of its caller, ["const float32*", "int32", ...], "x,n,...")}
py::dict load(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw std::runtime_error(dlerror());
  const auto* table = static_cast<const Launcher*>(dlsym(handle, "executor_launchers"));
  if (!table) throw std::runtime_error(path + " has no table of launchers");
  py::dict found;
  for (; table->name; ++table) {
    std::vector<std::string> types;
    for (const char* const* type = table->types; *type; ++type) types.push_back(*type);
    found[table->name] = py::make_tuple(reinterpret_cast<uintptr_t>(table->call), types, table->parameters);
  }
  return found;
}

py::tuple triple(uint3 v) { return py::make_tuple(v.x, v.y, v.z); }

// None, or what went wrong and where; `pc` is (file of the machine code, offset into it).
py::object error() {
  const executor::Error& e = state.error;
  if (!e.code) return py::none();
  py::dict d;
  d["code"] = e.code;
  d["kernel"] = e.kernel;
  d["message"] = e.message;
  d["block"] = e.in_thread ? py::object(triple(e.block)) : py::none();
  d["thread"] = e.in_thread ? py::object(triple(e.thread)) : py::none();
  d["file"] = e.site.file ? py::object(py::str(e.site.file)) : py::none();
  d["line"] = e.site.line;
  d["pc"] = py::none();
  Dl_info info{};
  if (e.site.pc && dladdr(e.site.pc, &info))
    d["pc"] = py::make_tuple(info.dli_fname, static_cast<const char*>(e.site.pc) - static_cast<char*>(info.dli_fbase));
  return d;
}

int call(uintptr_t function, const std::vector<uint64_t>& slots) {
  state.error = {};
  state.kernel_name = "";
  state.switches = state.accesses = 0;
  return reinterpret_cast<int (*)(const uint64_t*)>(function)(slots.data());
}

void configure(int order, uint64_t seed, int shared_limit, int multiprocessors, int compute_capability) {
  state.dynamic_limits.clear();  // a launcher has to ask for its shared memory in every call, not once in a process
  state.options = {order, 88172645463325252ull ^ (seed * 0x9E3779B97F4A7C15ull), shared_limit, multiprocessors,
                   compute_capability};
}

}  // namespace

PYBIND11_MODULE(EXECUTOR_MODULE, m) {
  m.doc() = "CUDA kernels on the CPU: one fiber per thread, checked.";
  m.def("load", &load);
  m.def("call", &call, py::arg("function"), py::arg("slots"));
  m.def("configure", &configure, py::arg("order"), py::arg("seed"), py::arg("shared_limit"), py::arg("multiprocessors"),
        py::arg("compute_capability"));
  m.def("error", &error);
  m.def("register_buffer", &executor::register_buffer, py::arg("address"), py::arg("bytes"), py::arg("name"),
        py::arg("read_only"), py::arg("uninitialised"));
  m.def("release_buffers", &executor::release_buffers);
  m.def("counts", [] { return py::make_tuple(state.switches, state.accesses); });
}
