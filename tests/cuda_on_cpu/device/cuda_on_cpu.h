// cuda_on_cpu.h -- CUDA's device language for g++: included by csrc/gpu.h where there is no nvcc.
//
// The machinery (one fiber per CUDA thread, checker) is in ../runtime. Left out on purpose, so that a kernel which
// needs it does not compile: cooperative groups, CUB, inline PTX, dynamic parallelism, textures, __activemask
// (its value depends on scheduling), implicit half conversions (torch compiles extensions without them).
// Not modelled: latencies, streams, FMA contraction, fast-math rounding, memory order beyond barriers and fences,
// spinning on another thread.
#pragma once

#include "language.h"

#include "runtime_api.h"

#include "atomics.h"
#include "half_types.h"
#include "host_api.h"
#include "math_functions.h"
#include "pipeline.h"
#include "synchronisation.h"
#include "tensor_cores.h"
#include "wmma.h"
