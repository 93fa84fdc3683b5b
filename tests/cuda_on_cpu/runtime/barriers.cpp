// barriers.cpp -- __syncthreads and the warp-wide operations; both demand that every thread named takes part.
#include <algorithm>
#include <cstring>

#include "state.h"

namespace executor {

static bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }

void release_barrier() {
  ++state.epoch;
  if (state.counting) count_barrier();
  state.barrier.waiting = 0;
  for (int k = 0; k < state.threads; ++k) {
    const int i = state.options.order == 1 ? state.threads - 1 - k : k;
    if (state.thread[i].status == Status::at_barrier) make_ready((unsigned)i);
  }
}

int block_barrier(Barrier kind, int predicate, Site site) {
  Thread* me = state.current;
  BarrierState& b = state.barrier;
  if (b.waiting && (b.kind != kind || !same(b.site, site)))
    fail(site, "divergent barrier: this thread reaches __syncthreads here while %d thread(s) wait at %s", b.waiting,
         at(b.site).c_str());
  if (state.finished) fail(site, "__syncthreads although %d thread(s) of the block have exited", state.finished);
  if (!b.waiting++) b.accumulated = kind == Barrier::all;
  if (kind == Barrier::count) b.accumulated += predicate != 0;
  if (kind == Barrier::all) b.accumulated = b.accumulated && predicate;
  if (kind == Barrier::any) b.accumulated = b.accumulated || predicate;
  b.kind = kind;
  b.site = site;
  me->site = site;
  me->status = Status::at_barrier;
  if (b.waiting == state.threads) {
    b.result = b.accumulated;
    release_barrier();
  }
  park();
  return b.result;  // stays until every thread has left: the next barrier needs all of them
}

static void check_mask(WarpOp kind, unsigned mask, int width, int lanes, Site site) {
  const Thread* me = state.current;
  const int base = (int)(me->linear - me->lane());
  const char* name = name_of(kind);
  if (!((mask >> me->lane()) & 1))
    fail(site, "%s: mask 0x%08x does not name the calling lane %u", name, mask, me->lane());
  if (lanes < kLanes && mask >> lanes)
    fail(site, "%s: mask 0x%08x names lanes beyond the block's last thread (this warp has %d)", name, mask, lanes);
  if (width < 1 || width > kLanes || (width & (width - 1)))
    fail(site, "%s: width %d is no power of two up to 32", name, width);
  for (int i = 0; i < lanes; ++i)
    if (((mask >> i) & 1) && state.thread[base + i].status == Status::finished)
      fail(site, "%s: mask 0x%08x names lane %d, which has exited", name, mask, i);
}

// The lane that `lane` reads from.
static int source_lane(WarpOp kind, int lane, int argument, int width) {
  const int segment = lane & ~(width - 1);
  switch (kind) {
    case WarpOp::shuffle: return segment + (argument & (width - 1));
    case WarpOp::shuffle_up: return lane - argument < segment ? lane : lane - argument;
    case WarpOp::shuffle_down: return lane + argument >= segment + width ? lane : lane + argument;
    case WarpOp::shuffle_xor: return (lane ^ argument) >= segment + width ? lane : lane ^ argument;
    default: return lane;
  }
}

// __syncwarp orders memory among its lanes: each learns what any of them knew.
static void join_clocks(unsigned mask, int base) {
  uint32_t joined[kLanes] = {};
  for (int i = 0; i < kLanes; ++i)
    if ((mask >> i) & 1)
      for (int k = 0; k < kLanes; ++k) joined[k] = std::max(joined[k], state.thread[base + i].clock[k]);
  for (int i = 0; i < kLanes; ++i)
    if ((mask >> i) & 1) {
      std::copy(joined, joined + kLanes, state.thread[base + i].clock);
      ++state.thread[base + i].clock[i];
    }
}

static void finish(const Meeting& meeting, int base, int lanes) {
  uint64_t operand[kLanes] = {}, total = 0;
  for (int i = 0; i < lanes; ++i) {
    operand[i] = state.thread[base + i].value;
    if (!((meeting.mask >> i) & 1)) continue;
    if (meeting.kind == WarpOp::ballot && operand[i]) total |= 1ull << i;
    if (meeting.kind == WarpOp::reduce_add) total = (uint32_t)(total + operand[i]);
  }
  if (meeting.kind == WarpOp::sync) join_clocks(meeting.mask, base);
  if (state.counting) {
    if (meeting.kind < WarpOp::mma) count_exchange();
    if (meeting.mask == 0xffffffffu >> (kLanes - lanes)) settle_warp((unsigned)(base / kLanes));
  }
  const bool shuffles = meeting.kind >= WarpOp::shuffle && meeting.kind <= WarpOp::shuffle_xor;
  for (int k = 0; k < lanes; ++k) {
    const int i = state.options.order == 1 ? lanes - 1 - k : k;
    if (!((meeting.mask >> i) & 1)) continue;
    Thread& t = state.thread[base + i];
    const int source = source_lane(meeting.kind, i, t.argument, meeting.width);
    const bool defined = source < lanes && ((meeting.mask >> source) & 1);
    t.value = !shuffles ? total : defined ? operand[source] : ~uint64_t{0};  // undefined on the GPU: a NaN here
    if (&t != state.current) make_ready(t.linear);
  }
}

uint64_t warp_operation(WarpOp kind, unsigned mask, uint64_t value, int argument, int width, Site site) {
  Thread* me = state.current;
  auto& meetings = state.meetings[me->warp()];
  const int base = (int)(me->linear - me->lane()), lanes = std::min(kLanes, state.threads - base);
  check_mask(kind, mask, width, lanes, site);
  me->value = value;
  me->argument = argument;
  me->site = site;
  auto found = std::find_if(meetings.begin(), meetings.end(),
                            [&](const Meeting& m) { return m.kind == kind && m.mask == mask && m.width == width; });
  if (found == meetings.end()) found = meetings.insert(meetings.end(), Meeting{kind, mask, 0, width, site});
  if (!same(found->site, site))
    fail(site, "divergent warp operation: %s here meets the one at %s", name_of(kind), at(found->site).c_str());
  found->arrived |= 1u << me->lane();
  if (found->arrived == mask) {
    const Meeting complete = *found;
    meetings.erase(found);
    finish(complete, base, lanes);
  } else {
    me->status = Status::in_warp_operation;
    park();
  }
  return me->value;
}

}  // namespace executor
