// bind.h -- turns launchers (functions with C linkage) into a table that the Python driver can call generically.
//
// The driver compiles one generated file for each kernel file: it includes the .cu, this header, and says
// EXECUTOR_TABLE(EXECUTOR_LAUNCHER(name, "x,n"), ...). A launcher's parameters are described by its C++ type and arrive
// as 64-bit slots: the address of an array, or the bits of a scalar.
#pragma once

#include <cstdint>
#include <utility>

#include "half_types.h"
#include "host_api.h"

namespace executor {

struct Launcher {
  const char* name;
  const char* parameters;    // names, separated by commas
  const char* const* types;  // "const float32*", "int32", "stream", ..., nullptr
  int (*call)(const uint64_t* slots);
};

template <class T>
struct TypeName {
  static constexpr const char *value = "unsupported", *pointer = "unsupported*", *constant = "const unsupported*";
};

#define EXECUTOR_TYPE(T, text)                                                                     \
  template <>                                                                                      \
  struct TypeName<T> {                                                                             \
    static constexpr const char *value = text, *pointer = text "*", *constant = "const " text "*"; \
  };
EXECUTOR_TYPE(void, "void")
EXECUTOR_TYPE(bool, "bool")
EXECUTOR_TYPE(float, "float32")
EXECUTOR_TYPE(double, "float64")
EXECUTOR_TYPE(__half, "float16")
EXECUTOR_TYPE(__nv_bfloat16, "bfloat16")
EXECUTOR_TYPE(signed char, "int8")
EXECUTOR_TYPE(unsigned char, "uint8")
EXECUTOR_TYPE(short, "int16")
EXECUTOR_TYPE(unsigned short, "uint16")
EXECUTOR_TYPE(int, "int32")
EXECUTOR_TYPE(unsigned, "uint32")
EXECUTOR_TYPE(long, "int64")
EXECUTOR_TYPE(unsigned long, "uint64")
EXECUTOR_TYPE(long long, "int64")
EXECUTOR_TYPE(unsigned long long, "uint64")
#undef EXECUTOR_TYPE

template <class T>
struct ParameterName {
  static constexpr const char* value = TypeName<T>::value;
};
template <class T>
struct ParameterName<T*> {
  static constexpr const char* value = TypeName<T>::pointer;
};
template <class T>
struct ParameterName<const T*> {
  static constexpr const char* value = TypeName<T>::constant;
};
template <>
struct ParameterName<cudaStream_t> {
  static constexpr const char* value = "stream";
};

template <class T>
EXECUTOR_UNCHECKED T from_slot(uint64_t slot) {
  T value;
  static_assert(sizeof(T) <= sizeof slot, "launchers take pointers and scalars");
  __builtin_memcpy(&value, &slot, sizeof value);
  return value;
}

template <auto function>
struct Binding;

template <class Result, class... P, Result (*function)(P...)>
struct Binding<function> {
  static constexpr const char* types[] = {ParameterName<P>::value..., nullptr};
  template <size_t... i>
  EXECUTOR_UNCHECKED static int expand(const uint64_t* slots, std::index_sequence<i...>) {
    return (int)function(from_slot<P>(slots[i])...);
  }
  EXECUTOR_UNCHECKED static int call(const uint64_t* slots) { return expand(slots, std::index_sequence_for<P...>{}); }
};

}  // namespace executor

#define EXECUTOR_LAUNCHER(name, parameters) \
  {#name, parameters, ::executor::Binding<&::name>::types, &::executor::Binding<&::name>::call}
#define EXECUTOR_TABLE(...)                         \
  extern "C" __attribute__((visibility("default"))) \
  const ::executor::Launcher executor_launchers[] = {__VA_ARGS__, {nullptr, nullptr, nullptr, nullptr}};
