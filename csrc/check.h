// Checks of the bindings: a sentence instead of a wrong address.
//
// No stream formats it, as STD_TORCH_CHECK's does: on a machine with torch 2.11.0 and Ubuntu's g++ 13 every refusal of
// the kernels ended the process with a segmentation fault inside the stream.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

namespace bertft::checks {

inline void append(std::string& text, const char* part) { text += part; }
inline void append(std::string& text, const std::string& part) { text += part; }
template <class T, std::enable_if_t<std::is_integral_v<T>, int> = 0> void append(std::string& text, T part) {
  text += std::to_string(part);
}

template <class... Parts> std::string sentence(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

}  // namespace bertft::checks

#define BERTFT_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (!(condition)) throw std::runtime_error(::bertft::checks::sentence(__VA_ARGS__)); \
  } while (false)
