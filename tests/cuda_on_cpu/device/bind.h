// bind.h -- turns launchers (functions with C linkage) into a table that the Python driver can call generically.
//
// The driver compiles one generated file for each kernel file: it includes the .cu, this header, and says
// EXECUTOR_TABLE(EXECUTOR_LAUNCHER(name), ...). A launcher's parameters are described by its C++ type and arrive as
// 64-bit slots: the address of an array, or the bits of a scalar.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "half_types.h"
#include "host_api.h"

namespace executor {

struct Launcher {
  const char* name;
  std::string (*describe)();  // "const float32*,int32,stream" ...
  int (*call)(const uint64_t* slots);
};

template <class T>
std::string type_name() {
  using std::is_same;
  if constexpr (is_same<T, float>::value) return "float32";
  else if constexpr (is_same<T, double>::value) return "float64";
  else if constexpr (is_same<T, __half>::value) return "float16";
  else if constexpr (is_same<T, __nv_bfloat16>::value) return "bfloat16";
  else if constexpr (is_same<T, bool>::value) return "bool";
  else if constexpr (is_same<T, void>::value) return "void";
  else if constexpr (std::is_enum<T>::value) return type_name<typename std::underlying_type<T>::type>();
  else if constexpr (std::is_integral<T>::value)
    return (std::is_signed<T>::value ? "int" : "uint") + std::to_string(8 * sizeof(T));
  else return "unsupported";
}

template <class T>
std::string parameter_name() {
  if constexpr (std::is_same<T, cudaStream_t>::value) return "stream";
  else if constexpr (std::is_pointer<T>::value) {
    typedef typename std::remove_pointer<T>::type Pointee;
    const std::string constness = std::is_const<Pointee>::value ? "const " : "";
    return constness + type_name<typename std::remove_cv<Pointee>::type>() + "*";
  } else {
    return type_name<typename std::remove_cv<T>::type>();
  }
}

template <class T>
EXECUTOR_UNCHECKED T from_slot(uint64_t slot) {
  T value;
  static_assert(sizeof(T) <= sizeof slot, "launchers take pointers and scalars");
  std::memcpy(&value, &slot, sizeof value);
  return value;
}

template <auto function>
struct Binding;

template <class Result, class... P, Result (*function)(P...)>
struct Binding<function> {
  static std::string describe() {
    std::string text;
    ((text += (text.empty() ? "" : ",") + parameter_name<P>()), ...);
    return text;
  }
  template <size_t... i>
  EXECUTOR_UNCHECKED static int expand(const uint64_t* slots, std::index_sequence<i...>) {
    return (int)function(from_slot<P>(slots[i])...);
  }
  EXECUTOR_UNCHECKED static int call(const uint64_t* slots) { return expand(slots, std::index_sequence_for<P...>{}); }
};

}  // namespace executor

#define EXECUTOR_LAUNCHER(name) {#name, &::executor::Binding<&::name>::describe, &::executor::Binding<&::name>::call}
#define EXECUTOR_TABLE(...)                                                    \
  extern "C" __attribute__((visibility("default")))                            \
  const ::executor::Launcher executor_launchers[] = {__VA_ARGS__, {nullptr, nullptr, nullptr}};
