// tensor_cores.cpp -- mma and ldmatrix: the lanes meet, gather their fragments into matrices, take their shares.
#include <cstdint>
#include <cstring>

#include "core_arithmetic.h"
#include "mma_layouts.h"
#include "state.h"

namespace executor {

namespace {

constexpr int kMaxSide = 32;

struct Matrices {
  double a[kMaxSide][kMaxSide], b[kMaxSide][kMaxSide];
};

const MmaLayout& layout_of(MmaShape shape) {
  switch (shape) {
    case MmaShape::m16n8k8_tf32: return kM16N8K8Tf32;
    case MmaShape::m16n8k16: return kM16N8K16;
    default: return kM8N8K4F64;
  }
}

double dot(const Matrices& m, int row, int column, int K, double sum) {
  for (int k = 0; k < K; ++k) sum += m.a[row][k] * m.b[k][column];
  return sum;
}

// Which lane and value hold an element of A (16 x 16) or B (16 x 8) of m16n8k16.
struct Owner {
  int lane, value;
};
struct Owners {
  Owner a[16][16], b[16][8];
  Owners() {
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int v = 0; v < kM16N8K16.a_values; ++v) {
        const Place p = kM16N8K16.a(lane, v);
        a[p.row][p.column] = {lane, v};
      }
      for (int v = 0; v < kM16N8K16.b_values; ++v) {
        const Place p = kM16N8K16.b(lane, v);
        b[p.row][p.column] = {lane, v};
      }
    }
  }
};

// A lane's share of d, from the rows and columns it needs.
void float16_products(int base, int lane, const double* c, double* d) {
  static const Owners owners;
  for (int v = 0; v < kM16N8K16.c_values; ++v) {
    const Place p = kM16N8K16.c(lane, v);
    double row[kCoreColumns], column[kCoreColumns];
    for (int k = 0; k < kCoreColumns; ++k) {
      const Owner a = owners.a[p.row][k], b = owners.b[k][p.column];
      row[k] = state.thread[base + a.lane].a[a.value];
      column[k] = state.thread[base + b.lane].b[b.value];
    }
    d[v] = core_products(row, column, (float)c[v], state.options.compute_capability);
  }
}

}  // namespace

void mma(MmaShape shape, int M, int N, int K, const double* a, const double* b, const double* c, double* d, Site site) {
  Thread* me = state.current;
  me->a = a;
  me->b = b;
  if (state.counting && me->lane() == 0) count_tensor();
  const int base = (int)(me->linear - me->lane()), lane = (int)me->lane();
  warp_operation(WarpOp::mma, 0xffffffffu, 0, 0, kLanes,
                 site);  // all have arrived, their fragments are on their stacks
  Matrices m;
  if (shape == MmaShape::m16n8k16_f16) {
    float16_products(base, lane, c, d);
  } else if (shape == MmaShape::wmma) {  // row-major over the lanes, as device/wmma.h loads and stores
    for (int e = 0; e < M * K; ++e)
      m.a[e / K][e % K] = state.thread[base + e / (M * K / kLanes)].a[e % (M * K / kLanes)];
    for (int e = 0; e < K * N; ++e)
      m.b[e / N][e % N] = state.thread[base + e / (K * N / kLanes)].b[e % (K * N / kLanes)];
    const int share = M * N / kLanes;
    for (int v = 0; v < share; ++v) d[v] = dot(m, (lane * share + v) / N, (lane * share + v) % N, K, c[v]);
  } else {
    const MmaLayout& layout = layout_of(shape);
    for (int i = 0; i < kLanes; ++i) {
      for (int v = 0; v < layout.a_values; ++v) {
        const Place p = layout.a(i, v);
        m.a[p.row][p.column] = state.thread[base + i].a[v];
      }
      for (int v = 0; v < layout.b_values; ++v) {
        const Place p = layout.b(i, v);
        m.b[p.row][p.column] = state.thread[base + i].b[v];
      }
    }
    for (int v = 0; v < layout.c_values; ++v) {
      const Place p = layout.c(lane, v);
      d[v] = dot(m, p.row, p.column, layout.K, c[v]);
    }
  }
  warp_operation(WarpOp::mma, 0xffffffffu, 0, 0, kLanes, site);  // nobody's fragment goes away before all have read it
}

void ldmatrix(unsigned* registers, int count, bool transposed, const void* row, Site site) {
  Thread* me = state.current;
  me->row = row;
  if (reinterpret_cast<uintptr_t>(row) % 16) fail(site, "ldmatrix: row address not 16-byte aligned");
  const char* address = static_cast<const char*>(row);
  if (address < state.arena || address >= state.arena + kArenaBytes)
    fail(site, "ldmatrix: row is not in shared memory");
  const int base = (int)(me->linear - me->lane()), group = (int)me->lane() / 4, quad = (int)me->lane() % 4;
  warp_operation(WarpOp::ldmatrix, 0xffffffffu, 0, 0, kLanes, site);
  if (state.counting && me->lane() == 0) {
    const void* rows[kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i] = state.thread[base + i].row;
    count_matrix(rows, count, site);
  }
  for (int m = 0; m < count; ++m) {
    uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      const int r = transposed ? 2 * quad + e : group, c = transposed ? group : 2 * quad + e;
      const char* source = static_cast<const char*>(state.thread[base + 8 * m + r].row) + 2 * c;
      if (state.checked && !state.counting) check_access(reinterpret_cast<uintptr_t>(source), 2, Access::read, site);
      std::memcpy(&pair[e], source, 2);
    }
    registers[m] = pair[0] | (unsigned)pair[1] << 16;
  }
  warp_operation(WarpOp::ldmatrix, 0xffffffffu, 0, 0, kLanes, site);
}

}  // namespace executor
