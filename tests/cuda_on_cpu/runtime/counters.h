// counters.h -- what a launch asks of shared and global memory, tensor cores and barriers, warp by warp.
//
// Lanes run one after the other, so their accesses are first written down: those of one instruction, the n-th time each
// lane comes to it since its warp last met, are one request of the warp. A request is taken apart when the warp meets
// again (a barrier, an operation of all its lanes, the end of the block).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../device/runtime_api.h"

namespace executor {

enum class Request { load, store, atomic, copy_from, copy_to, matrix };  // the last three: cp.async, ldmatrix

// The requests of one instruction. A wavefront is one pass through shared memory, a sector 32 bytes of global memory.
struct Instruction {
  Site site;
  Request what;
  bool shared;
  unsigned bytes;  // a lane
  uint64_t requests = 0, lanes = 0, wavefronts = 0, least_wavefronts = 0;
  uint64_t sectors = 0, least_sectors = 0, lines = 0;  // lines of 128 bytes
};

struct LaunchCount {
  std::string kernel;
  dim3 grid, block;
  uint64_t tensor = 0, barriers = 0, exchanges = 0;  // mma; __syncthreads of a block; shuffles, votes, __syncwarp
  // sectors of global memory: distinct ones; those that L2 is asked for, where L1 keeps what a block has read, except
  // of cp.async and atomics, and passes every store on
  uint64_t read = 0, read_by_block = 0, written = 0, written_by_block = 0;
  std::vector<Instruction> instructions;
};

extern std::vector<LaunchCount> launch_counts;  // since the last call began

void count_launch(const char* kernel, dim3 grid, dim3 block);
void count_access(uintptr_t address, unsigned bytes, Request what, Site site);  // by the current thread
void count_matrix(const void* const* rows, int matrices, Site site);            // ldmatrix: 8 rows of 16 bytes each
void count_tensor();
void count_exchange();
void count_barrier();
void settle_warp(unsigned warp);  // its lanes have met
void settle_block();

// Passes that lanes' accesses to shared memory need. least: what as many bytes need at best. Lanes of 8 bytes go by
// half warps and of 16 by quarters, at half the price where neighbours (lanes n and n ^ 1, or n and n ^ 2) all ask for
// the same; lanes of up to 4 bytes all at once. In a pass a bank gives one word, to any number of lanes.
unsigned wavefronts(const uintptr_t* address, unsigned mask, unsigned bytes, bool atomic, unsigned* least);

}  // namespace executor
