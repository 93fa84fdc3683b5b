// Checks of the bindings: an error message instead of a wrong address.
//
// The message is not formatted by a stream, as in STD_TORCH_CHECK: with torch 2.11.0 and Ubuntu's g++ 13, every failed
// check ended the process with a segmentation fault inside the stream.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

namespace bertft::checks {

inline void append(std::string& text, const char* part) { text += part; }
inline void append(std::string& text, const std::string& part) { text += part; }
template <class T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
void append(std::string& text, T part) {
  text += std::to_string(part);
}

template <class... Parts>
std::string sentence(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

}  // namespace bertft::checks

#define BERTFT_CHECK(condition, ...)                                                     \
  do {                                                                                   \
    if (!(condition)) throw std::runtime_error(::bertft::checks::sentence(__VA_ARGS__)); \
  } while (false)
