// error.cpp -- the first fault of a launch is kept, with the thread and the place; the block is abandoned.
#include <cstdarg>
#include <cstdio>

#include "state.h"

namespace executor {

State state;

static void keep(int code, const std::string& message, const Thread* thread, Site site) {
  if (state.error.code) return;
  Error& e = state.error;
  e.code = code;
  e.kernel = state.kernel_name;
  if (e.kernel.size() > 2 && e.kernel[0] == '(') e.kernel = e.kernel.substr(1, e.kernel.size() - 2);
  e.message = message;
  e.site = site;
  e.block = state.block_index;
  e.in_thread = thread != nullptr;
  if (thread) e.thread = thread->index;
}

void fail(Site site, const char* format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  keep(kLaunchFailure, text, state.current, site);
  abandon_block();
  __builtin_unreachable();
}

void fail_block(const std::string& message) {
  keep(kLaunchFailure, message, nullptr, {});
  abandon_block();
  __builtin_unreachable();
}

int refuse(int code, const std::string& message) {
  keep(code, message, nullptr, {});
  return code;
}

std::string at(Site site) {
  const char* slash = site.file;
  for (const char* p = site.file; p && *p; ++p)
    if (*p == '/') slash = p + 1;
  return std::string(slash ? slash : "?") + ":" + std::to_string(site.line);
}

const char* name_of(WarpOp kind) {
  switch (kind) {
    case WarpOp::sync: return "__syncwarp";
    case WarpOp::shuffle: return "__shfl_sync";
    case WarpOp::shuffle_up: return "__shfl_up_sync";
    case WarpOp::shuffle_down: return "__shfl_down_sync";
    case WarpOp::shuffle_xor: return "__shfl_xor_sync";
    case WarpOp::ballot: return "a vote";
    case WarpOp::reduce_add: return "__reduce_add_sync";
    case WarpOp::mma: return "mma";
    case WarpOp::fragment: return "a wmma load or store";
    case WarpOp::ldmatrix: return "ldmatrix";
  }
  return "?";
}

void trap(const char* why, Site site) { fail(site, "%s", why); }

int last_error(bool reset) {
  // The fault itself stays for the driver to read; `reset` is accepted as CUDA's API has it.
  (void)reset;
  return state.error.code;
}

const char* error_text() { return state.error.message.c_str(); }

}  // namespace executor
