// probe_loss: distance and depth loss of structural probes over packed sentences, with their gradients.
//
//   p[l, t, :] = B_l' h_lt, made by a library product; columns [0, RD) for distances, [RD, R) for depths
//   e_ij = |p_i - p_j|^2 - distances_ij     loss[l, 0] = mean_s 1 / n^2 sum_ij |e_ij|
//   e_i = |p_i|^2 - depths_i                loss[l, 1] = mean_s 1 / n sum_i |e_i|
//   dp_i = 2 / (S n^2) sum_j (sign e_ij + sign e_ji) (p_i - p_j)  |  2 / (S n) sign(e_i) p_i
//   p, dp (L, T, R), distances packed sum n_s^2, depths (T,), loss (L, 2); S counts sentences with words; sign 0 = 0.
// Types: float or double throughout; distances also uint8; loss summed in double.
// Work split: a block of 128 threads owns 32 words of one sentence in one layer; `tiles` lists them (plan in
//   probe_loss.cuh), long sentences first. Pass 1 walks the sentence 32 partners at a time, 4 x 2 pairs to a thread,
//   read by 16-byte loads, and leaves the signs in shared memory; pass 2 multiplies them with the sentence, 64 columns
//   at a time, 4 x 4 sums to a thread. The depth of a word is one warp's work. Partial losses are folded in a fixed
//   order: same input, same bits.
// Shared memory: 13.3 KB + 128 bytes a word of the longest sentence (double: twice): up to 1,700 words on an H100.
// registers: <= 128
// counters: probe_loss_kernel bank conflicts <= 12 %, load sectors <= 1.8, store sectors <= 4.0
// float32: probe_loss_kernel steps * 4 * 26 * rank
// issued: probe_loss_kernel steps * 4 * 57 * rank
// Expected limit: arithmetic of pass 1 and 2, 3 n R instructions a word; p read 3 n / 32 + 1 times (n rounded up to 32)
//   from L2, dp written once, 4 bytes each. At n = 20, R = 128, D = 768, tiles 40 % full, that is 19,000 instructions
//   a word; the three library products around it (p, and the gradients of h and B: 6 D R flops) take 15 times as many.
// Presumption: sentences of 10 to 60 words, hundreds of them; a tile of 32 x 32 pairs is 40 % full at 20 words.
#include "probe_loss.cuh"

namespace bertft {
namespace {

constexpr int NT = 128, kTile = kProbeTile, kColumns = 32, kStride = kColumns + 4, kWide = 64, kWideStride = kWide + 4;

template <class C>
__device__ __forceinline__ C sign(C e) {
  return e > 0 ? C(1) : e < 0 ? C(-1) : C(0);
}

// rows x columns of p, zero outside, into a stage with `stride` values a row; all threads.
template <class C>
__device__ __forceinline__ void fetch(C* stage, int stride, const C* p, int rows, int columns, int width, int ld) {
  for (int e = static_cast<int>(threadIdx.x); e < kTile * width; e += NT) {
    const int r = e / width, k = e % width;
    stage[r * stride + k] = r < rows && k < columns ? p[static_cast<long long>(r) * ld + k] : C(0);
  }
}

// Pass 1: signs[j][i] of all pairs of the tile's words i with the sentence's words j; the thread's share of the loss.
template <class C, class G>
__device__ __forceinline__ double distance_signs(const C* sentence, const G* gold, const ProbeTile& tile, int rank,
                                                 int ld, bool keep, C* rows, C* partners, C* signs) {
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16, n = tile.words;
  const int own = min(kTile, n - tile.first);
  double loss = 0;
  for (int j0 = 0; j0 < n; j0 += kTile) {
    C d[4][2] = {};
    for (int k0 = 0; k0 < rank; k0 += kColumns) {
      const int columns = min(kColumns, rank - k0);
      __syncthreads();  // the stages have been read
      fetch(rows, kStride, sentence + static_cast<long long>(tile.first) * ld + k0, own, columns, kColumns, ld);
      fetch(partners, kStride, sentence + static_cast<long long>(j0) * ld + k0, n - j0, columns, kColumns, ld);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kColumns; k += 4) {
        C a[4][4], b[2][4];
#pragma unroll
        for (int r = 0; r < 4; ++r) load4(rows + (ty * 4 + r) * kStride + k, a[r]);
#pragma unroll
        for (int c = 0; c < 2; ++c) load4(partners + (tx + 16 * c) * kStride + k, b[c]);
#pragma unroll
        for (int q = 0; q < 4; ++q)
#pragma unroll
          for (int r = 0; r < 4; ++r)
#pragma unroll
            for (int c = 0; c < 2; ++c) d[r][c] += (a[r][q] - b[c][q]) * (a[r][q] - b[c][q]);
      }
    }
#pragma unroll
    for (int c = 0; c < 2; ++c)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int i = tile.first + ty * 4 + r, j = j0 + tx + 16 * c;
        C s = 0;
        if (i < n && j < n) {
          const C e = d[r][c] - static_cast<C>(gold[static_cast<long long>(i) * n + j]);
          loss += absolute(e);
          s = sign(e) + sign(d[r][c] - static_cast<C>(gold[static_cast<long long>(j) * n + i]));
        }
        if (keep) signs[j * kTile + ty * 4 + r] = s;
      }
  }
  return loss;
}

// Pass 2: dp of the tile's words, 64 columns at a time.
template <class C>
__device__ __forceinline__ void distance_gradient(const C* sentence, C* out, const ProbeTile& tile, C scale, int rank,
                                                  int ld, C* partners, const C* signs) {
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16, n = tile.words;
  for (int k0 = 0; k0 < rank; k0 += kWide) {
    C acc[4][4] = {}, total[4] = {};
    for (int j0 = 0; j0 < n; j0 += kTile) {
      __syncthreads();  // signs are complete, the stage has been read
      fetch(partners, kWideStride, sentence + static_cast<long long>(j0) * ld + k0, n - j0, min(kWide, rank - k0),
            kWide, ld);
      __syncthreads();
#pragma unroll 4
      for (int j = 0; j < kTile; ++j) {
        C s[4], b[4];
        load4(signs + (j0 + j) * kTile + ty * 4, s);
        load4(partners + j * kWideStride + tx * 4, b);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          total[r] += s[r];
#pragma unroll
          for (int c = 0; c < 4; ++c) acc[r][c] += s[r] * b[c];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int i = tile.first + ty * 4 + r, k = k0 + tx * 4 + c;
        if (i >= n || k >= rank) continue;
        const long long at = static_cast<long long>(i) * ld + k;
        out[at] = scale * (total[r] * sentence[at] - acc[r][c]);
      }
  }
}

// Depth loss of the tile's words, one warp a word; the warp's share of the loss in every lane.
template <class C>
__device__ __forceinline__ double depth_loss(const C* sentence, C* out, const C* gold, const ProbeTile& tile, C scale,
                                             int rank, int ld) {
  const int lane = static_cast<int>(threadIdx.x) % 32, end = min(tile.words, tile.first + kTile);
  double loss = 0;
  for (int i = tile.first + static_cast<int>(threadIdx.x) / 32; i < end; i += NT / 32) {
    const long long at = static_cast<long long>(i) * ld;
    C square = 0;
    for (int k = lane; k < rank; k += 32) square += sentence[at + k] * sentence[at + k];
    const C e = warp_sum(square) - gold[i];
    loss += absolute(e);
    if (out)
      for (int k = lane; k < rank; k += 32) out[at + k] = scale * sign(e) * sentence[at + k];
  }
  return loss;
}

// Block (tile, layer); partial[l][tile][2] double.
template <class C, class G>
__global__ void __launch_bounds__(NT, 4)
    probe_loss_kernel(const C* __restrict__ p, const G* __restrict__ distances, const C* __restrict__ depths,
                      const ProbeTile* __restrict__ tiles, int first_tile, int all_tiles, double sentences,
                      long long words, int rank, int distance_rank, C* __restrict__ dp, double* __restrict__ partial) {
  BERTFT_DYN_SHARED(C, shared);
  BERTFT_SHARED(double, scratch, [NT / 32]);
  C *rows = shared, *partners = rows + kTile * kStride, *signs = partners + kTile * kWideStride;
  const int t = first_tile + static_cast<int>(blockIdx.x), layer = static_cast<int>(blockIdx.y);
  const ProbeTile tile = tiles[t];
  const long long start = (layer * words + tile.word) * rank;
  const double n = tile.words;
  double loss[2] = {0, 0};
  if (distance_rank > 0) {
    const double mean = 1 / (n * n * sentences);
    loss[0] = distance_signs(p + start, distances + tile.pairs, tile, distance_rank, rank, dp != nullptr, rows,
                             partners, signs);
    loss[0] *= mean;
    if (dp) {
      distance_gradient(p + start, dp + start, tile, static_cast<C>(2 * mean), distance_rank, rank, partners, signs);
    }
  }
  if (distance_rank < rank) {
    const double mean = 1 / (n * sentences);
    const double share = depth_loss(p + start + distance_rank, dp ? dp + start + distance_rank : nullptr,
                                    depths + tile.word, tile, static_cast<C>(2 * mean), rank - distance_rank, rank);
    loss[1] = threadIdx.x % 32 == 0 ? share * mean : 0;
  }
  for (int k = 0; k < 2; ++k) {
    const double sum = block_sum<NT>(loss[k], scratch);
    if (threadIdx.x == 0) partial[(static_cast<long long>(layer) * all_tiles + t) * 2 + k] = sum;
  }
}

// loss[l, k] = sum of partial[l][0..tiles)[k]: one block a layer, always in the same order.
template <class C>
__global__ void __launch_bounds__(NT) fold_kernel(const double* __restrict__ partial, int tiles, C* __restrict__ loss) {
  BERTFT_SHARED(double, scratch, [NT / 32]);
  const double* mine = partial + static_cast<long long>(blockIdx.x) * tiles * 2;
  for (int k = 0; k < 2; ++k) {
    double sum = 0;
    for (int t = static_cast<int>(threadIdx.x); t < tiles; t += NT) sum += mine[2 * t + k];
    sum = block_sum<NT>(sum, scratch);
    if (threadIdx.x == 0) loss[blockIdx.x * 2 + k] = static_cast<C>(sum);
  }
}

template <class C, class G>
int run(const void* p, const void* distances, const void* depths, const ProbeTile* tiles, int num_tiles, int long_tiles,
        int longest, long long sentences, int layers, long long words, int rank, int distance_rank, void* dp,
        double* partial, void* loss, cudaStream_t stream) {
  const auto shared = [](int n) {
    return sizeof(C) * kTile * (kStride + kWideStride + size_t(ceil_div(n, kTile)) * kTile);
  };
  const int first[3] = {0, long_tiles, num_tiles}, reach[2] = {longest, kProbeShort};
  if (int rc = allow_shared(probe_loss_kernel<C, G>, shared(long_tiles ? longest : kProbeShort))) return rc;
  for (int part = 0; part < 2; ++part) {
    if (first[part] == first[part + 1]) continue;
    BERTFT_LAUNCH((probe_loss_kernel<C, G>), dim3(first[part + 1] - first[part], layers), dim3(NT), shared(reach[part]),
                  stream, static_cast<const C*>(p), static_cast<const G*>(distances), static_cast<const C*>(depths),
                  tiles, first[part], num_tiles, static_cast<double>(sentences), words, rank, distance_rank,
                  static_cast<C*>(dp), partial);
    if (int rc = static_cast<int>(cudaGetLastError())) return rc;
  }
  BERTFT_LAUNCH((fold_kernel<C>), dim3(layers), dim3(NT), 0, stream, partial, num_tiles, static_cast<C*>(loss));
  return static_cast<int>(cudaGetLastError());
}

}  // namespace
}  // namespace bertft

using namespace bertft;

// lengths (S,) on the host -> counts (3,): tiles, those of sentences above kProbeShort words, words of the longest
// sentence; and unless it is null, tiles: 24 bytes each.
extern "C" int probe_loss_plan(const long long* lengths, long long sentences, void* tiles, int* counts) {
  const std::vector<ProbeTile> plan = plan_probe_tiles(lengths, sentences);
  counts[0] = static_cast<int>(plan.size());
  counts[1] = static_cast<int>(
      std::count_if(plan.begin(), plan.end(), [](const ProbeTile& tile) { return tile.words > kProbeShort; }));
  counts[2] = plan.empty() ? 0 : plan.front().words;
  if (tiles) std::copy(plan.begin(), plan.end(), static_cast<ProbeTile*>(tiles));
  return 0;
}

// tiles, num_tiles, long_tiles, longest: from probe_loss_plan; sentences: how many have words. dp may be null. partial:
// (L, num_tiles, 2) double. dtype: kFloat32 or kFloat64; distance_dtype: the same or kUInt8.
extern "C" int probe_loss_launch(const void* p, const void* distances, const void* depths, const void* tiles,
                                 int num_tiles, int long_tiles, int longest, long long sentences, int dtype,
                                 int distance_dtype, int layers, long long words, int rank, int distance_rank, void* dp,
                                 double* partial, void* loss, cudaStream_t stream) {
  if (layers < 0 || layers > 65535 || num_tiles < 0 || long_tiles < 0 || long_tiles > num_tiles || distance_rank < 0 ||
      distance_rank > rank) {
    return kInvalid;
  }
  if (layers == 0) return 0;
  const auto start = [&](auto zero, auto gold) {
    return run<decltype(zero), decltype(gold)>(p, distances, depths, static_cast<const ProbeTile*>(tiles), num_tiles,
                                               long_tiles, longest, sentences, layers, words, rank, distance_rank, dp,
                                               partial, loss, stream);
  };
  if (dtype == kFloat32 && distance_dtype == kUInt8) return start(float{}, uint8_t{});
  if (dtype == kFloat32 && distance_dtype == kFloat32) return start(float{}, float{});
  if (dtype == kFloat64 && distance_dtype == kUInt8) return start(double{}, uint8_t{});
  if (dtype == kFloat64 && distance_dtype == kFloat64) return start(double{}, double{});
  return kInvalid;
}
