#include "common/ops/cuda/gemv.h"

#include <cassert>
#include <limits>

#include "common/ops/cuda/gemv_kernel.cuh"

namespace baton::ops {
namespace {

using namespace gemv_detail;

// How k is shared out, by k alone: of these numbers of warps the first that idle least.
int warps_for(int64_t k) {
  const int64_t chunks = ceil_div<int64_t>(k, kChunk);
  int best = 8;
  for (const int warps : {7, 6, 5}) {
    if (ceil_div<int64_t>(chunks, warps) * warps < ceil_div<int64_t>(chunks, best) * best) {
      best = warps;
    }
  }
  return best;
}

// Big blocks read x less often, small ones balance better and read longer runs of w; every
// multiprocessor gets work before any block grows.
int tiles_per_block(const CudaStream& stream, const GemvArgs& a, int64_t tiles) {
  int most = a.norm_x != nullptr || a.m > 4 ? kMaxTiles : a.m > 2 ? 2 : 1;
  while (most > 1 && 10 * ceil_div<int64_t>(tiles, most) < 9 * stream.info().multiprocessors) {
    most /= 2;
  }
  return most;
}

template <class T, int kHalves, int kXTiles, bool kSilu, bool kNorm>
void run(CudaStream& stream, const GemvArgs& a) {
  const auto kernel = gemv_kernel<T, kHalves, kXTiles, kSilu, kNorm>;
  constexpr int kWarpRing = WeightStream<T, kHalves, kSilu>::kUnit * kStages * int{sizeof(uint4)};
  static_assert(kXTiles * 8 * kColumnPitch * int{sizeof(float)} * (kHalves == 1 ? 1 : kMaxTiles) <=
                kWarpRing);  // a warp's partial sums; tiles of 8 rows come one a block
  [[maybe_unused]] static const bool prepared = [&] {
    allow_shared(kernel, kMaxWarps * kWarpRing);
    // Room for two blocks, of this kernel or of this and the next.
    device::cuda_must(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                           cudaSharedmemCarveoutMaxShared),
                      "cudaFuncSetAttribute");
    return true;
  }();
  const int warps = warps_for(a.k);
  using Tiles = Tiling<kHalves, kSilu>;
  const int64_t tiles = ceil_div<int64_t>(Tiles::columns(a), Tiles::kColumns);
  const int per_block = kHalves == 1 ? 1 : tiles_per_block(stream, a, tiles);
  launch(stream, static_cast<unsigned>(ceil_div<int64_t>(tiles, per_block)),
         static_cast<unsigned>(warps * 32), static_cast<size_t>(warps * kWarpRing), kernel, a,
         per_block);
}

template <class T, int kHalves, bool kSilu>
void run(CudaStream& stream, const GemvArgs& a) {
  if (a.norm_x == nullptr) {
    a.m <= 8 ? run<T, kHalves, 1, kSilu, false>(stream, a)
             : run<T, kHalves, 2, kSilu, false>(stream, a);
  } else {
    a.m <= 8 ? run<T, kHalves, 1, kSilu, true>(stream, a)
             : run<T, kHalves, 2, kSilu, true>(stream, a);
  }
}

[[maybe_unused]] bool on_16_bytes(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

}  // namespace

bool gemv_fits(int64_t m, int64_t n, int64_t k) {
  // The largest k keeps k's chunks, and those called for behind them, in an int.
  return m >= 0 && m <= kMaxGemvRows && n > 0 && n <= std::numeric_limits<int32_t>::max() &&
         k > 0 && k % 8 == 0 && k <= std::numeric_limits<int32_t>::max() / 2;
}

void gemv(CudaStream& stream, const GemvArgs& a) {
  assert(gemv_fits(a.m, a.n, a.k));
  assert((a.x == nullptr) != (a.norm_x == nullptr));
  assert(on_16_bytes(a.w) && on_16_bytes(a.x) && on_16_bytes(a.norm_x));
  assert(a.x_stride % 8 == 0 && (a.norm_x == nullptr || on_16_bytes(a.norm_weight)));
  assert(!a.silu || (a.n % 2 == 0 && !a.accumulate && !a.out_f32));
  if (a.m == 0) return;
  with_half(a.half, [&]<class T>() {
    if (a.silu) return run<T, 2, true>(stream, a);
    // Few rows: tiles of 8, if each still has a multiprocessor to itself.
    const bool few = ceil_div<int64_t>(a.n, 8) <= stream.info().multiprocessors;
    few ? run<T, 1, false>(stream, a) : run<T, 2, false>(stream, a);
  });
}

}  // namespace baton::ops
