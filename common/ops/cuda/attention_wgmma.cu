#include "common/ops/cuda/attention_wgmma.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

#include "common/ops/cuda/attention_wgmma_launch.cuh"

namespace baton::ops {

extern template void wgmma::attend<f16>(CudaStream&, const AttentionArgs&, Params&);

namespace {

using namespace wgmma;

// The tiles of rows, most tokens first, in memory that the device reads. Returns how many.
uint32_t stage_tiles(CudaStream& stream, const AttentionArgs& args, uint32_t min_rows,
                     const RowTile** staged) {
  const auto sequences = args.sequences.host;
  uint32_t count = 0;
  for (const SequenceRows& s : sequences) {
    if (s.num_rows >= min_rows) count += ceil_div(s.num_rows, kRows);
  }
  if (count == 0) return 0;
  auto* const tiles = reinterpret_cast<RowTile*>(stream.stage(count * sizeof(RowTile)));
  RowTile* next = tiles;
  for (uint32_t i = 0; i < sequences.size(); ++i) {
    const SequenceRows& s = sequences[i];
    if (s.num_rows < min_rows) continue;
    for (uint32_t r = 0; r < s.num_rows; r += kRows) {
      *next++ = {s.first_row + r, std::min(kRows, s.num_rows - r), s.position + r, i};
    }
  }
  std::sort(tiles, next, [](const RowTile& a, const RowTile& b) {
    return a.position + a.rows > b.position + b.rows;
  });
  *staged = tiles;
  return count;
}

// A build without sm_90a has an empty body, which has no shared memory of its own.
template <uint32_t kHeadDim>
bool is_built() {
  static const bool built = [] {
    cudaFuncAttributes attributes;
    device::cuda_must(cudaFuncGetAttributes(&attributes, attention_wgmma_kernel<bf16, kHeadDim>),
                      "cudaFuncGetAttributes");
    return attributes.sharedSizeBytes > 0;
  }();
  return built;
}

bool is_aligned(const void* data, size_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride_bytes % 16 == 0;
}

}  // namespace

bool wgmma_attention_fits(const device::CudaInfo& info, const AttentionArgs& args) {
  const PagedKv& kv = args.kv;
  if (info.compute_major != 9 || info.compute_minor != 0) return false;
  const DType half = args.q.dtype;
  if ((half != DType::kBF16 && half != DType::kF16) || kv.dtype != half || args.out.dtype != half) {
    return false;
  }
  if (kv.block_tokens < 16 || kv.block_tokens > 256 || !std::has_single_bit(kv.block_tokens) ||
      args.num_heads % kv.num_kv_heads != 0) {
    return false;
  }
  if (!is_aligned(args.q.data, args.q.row_stride * kHalfBytes) ||
      !is_aligned(args.out.data, args.out.row_stride * kHalfBytes) ||
      !is_aligned(kv.base, kv.token_stride | kv.head_stride | kv.plane_stride | kv.block_stride)) {
    return false;
  }
  return (kv.head_dim == 64 && is_built<64>()) || (kv.head_dim == 128 && is_built<128>());
}

void wgmma_attention(CudaStream& stream, const AttentionArgs& args, uint32_t min_rows) {
  assert(wgmma_attention_fits(stream.info(), args));
  const PagedKv& kv = args.kv;
  Params p;
  const uint32_t num_tiles = stage_tiles(stream, args, std::max(min_rows, 1u), &p.tiles);
  if (num_tiles == 0) return;
  p.sequences = args.sequences.device;
  p.out = args.out.data;
  p.out_stride = args.out.row_stride;
  p.num_items = num_tiles * args.num_heads;
  p.num_heads = args.num_heads;
  p.group_heads = args.num_heads / kv.num_kv_heads;
  p.block_shift = std::countr_zero(kv.block_tokens);
  p.box_shift = std::countr_zero(std::min(kv.block_tokens, kTokens));
  p.scale_log2 = args.scale * static_cast<float>(M_LOG2E);
  with_half(args.q.dtype, [&]<class T>() { attend<T>(stream, args, p); });
}

}  // namespace baton::ops
