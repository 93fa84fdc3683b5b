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

// (file, line, pc): pc is None, or (file of the machine code, offset into it).
py::tuple place(executor::Site site) {
  py::object pc = py::none();
  Dl_info info{};
  if (site.pc && dladdr(site.pc, &info))
    pc = py::make_tuple(info.dli_fname, static_cast<const char*>(site.pc) - static_cast<char*>(info.dli_fbase));
  return py::make_tuple(site.file ? py::object(py::str(site.file)) : py::none(), site.line, pc);
}

// None, or what went wrong and where.
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
  d["pc"] = place(e.site)[2];
  return d;
}

int call(uintptr_t function, const std::vector<uint64_t>& slots) {
  state.error = {};
  state.kernel_name = "";
  state.switches = state.accesses = 0;
  executor::launch_counts.clear();
  return reinterpret_cast<int (*)(const uint64_t*)>(function)(slots.data());
}

void configure(int order, uint64_t seed, int shared_limit, int multiprocessors, int compute_capability,
               bool counting) {
  state.dynamic_limits.clear();  // a launcher has to ask for its shared memory in every call, not once in a process
  state.options = {order, 88172645463325252ull ^ (seed * 0x9E3779B97F4A7C15ull), shared_limit, multiprocessors,
                   compute_capability, counting};
}

py::dict instruction(const executor::Instruction& i) {
  static const char* const names[] = {"load", "store", "atomic", "cp.async from", "cp.async to", "ldmatrix"};
  py::dict d;
  d["what"] = names[(int)i.what];
  d["shared"] = i.shared;
  d["bytes"] = i.bytes;
  d["requests"] = i.requests;
  d["lanes"] = i.lanes;
  d["wavefronts"] = i.wavefronts;
  d["least_wavefronts"] = i.least_wavefronts;
  d["sectors"] = i.sectors;
  d["least_sectors"] = i.least_sectors;
  d["lines"] = i.lines;
  d["place"] = place(i.site);
  return d;
}

// What each launch of the last call asked for, where requests were counted.
py::list launches() {
  py::list all;
  for (const executor::LaunchCount& c : executor::launch_counts) {
    py::dict d;
    d["kernel"] = c.kernel;
    d["blocks"] = (uint64_t)c.grid.x * c.grid.y * c.grid.z;
    d["threads"] = c.block.x * c.block.y * c.block.z;
    d["tensor"] = c.tensor;
    d["barriers"] = c.barriers;
    d["exchanges"] = c.exchanges;
    d["read_by_block"] = c.read_by_block;
    d["read"] = c.read;
    d["written_by_block"] = c.written_by_block;
    d["written"] = c.written;
    py::list list;
    for (const executor::Instruction& i : c.instructions) list.append(instruction(i));
    d["instructions"] = list;
    all.append(d);
  }
  return all;
}

}  // namespace

PYBIND11_MODULE(EXECUTOR_MODULE, m) {
  m.doc() = "CUDA kernels on the CPU: one fiber per thread, checked.";
  m.def("load", &load);
  m.def("call", &call, py::arg("function"), py::arg("slots"));
  m.def("configure", &configure, py::arg("order"), py::arg("seed"), py::arg("shared_limit"), py::arg("multiprocessors"),
        py::arg("compute_capability"), py::arg("counting"));
  m.def("error", &error);
  m.def("launches", &launches);
  m.def("register_buffer", &executor::register_buffer, py::arg("address"), py::arg("bytes"), py::arg("name"),
        py::arg("read_only"), py::arg("uninitialised"));
  m.def("release_buffers", &executor::release_buffers);
  m.def("counts", [] { return py::make_tuple(state.switches, state.accesses); });
}
