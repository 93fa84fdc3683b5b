// pipeline.h -- cp.async. The bytes arrive as late as the program allows (at the wait) and the destination holds
// NaN until then, so that a missing or short wait shows.
#pragma once

#include "runtime_api.h"

static inline void __pipeline_memcpy_async(void* shared, const void* global, size_t bytes, size_t zero_filled = 0,
                                           EXECUTOR_CALLER) {
  executor::async_copy(shared, global, (unsigned)bytes, (unsigned)zero_filled, EXECUTOR_SITE);
}
static inline void __pipeline_commit() { executor::async_commit(); }
static inline void __pipeline_wait_prior(size_t groups) { executor::async_wait((unsigned)groups); }
