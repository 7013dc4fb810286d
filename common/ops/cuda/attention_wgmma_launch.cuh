#pragma once

#include <algorithm>

#include "common/ops/cuda/attention_wgmma.cuh"

// f16's kernels are made in a file of their own, as those of attention_launch.h are.
namespace baton::ops::wgmma {

template <class T, uint32_t kHeadDim>
void attend(CudaStream& stream, const Params& p) {
  const uint32_t blocks = std::max(std::min<uint32_t>(p.num_items, stream.info().multiprocessors),
                                   ceil_div(p.num_items, kMaxItems));
  allow_shared(attention_wgmma_kernel<T, kHeadDim>, kSharedBytes<kHeadDim>);
  launch(stream, blocks, kThreads, kSharedBytes<kHeadDim>, attention_wgmma_kernel<T, kHeadDim>, p);
}

// Of halves T; p lacks the tensors' maps.
template <class T>
void attend(CudaStream& stream, const AttentionArgs& args, Params& p) {
  p.q = map_queries<T>(args.q);
  p.kv = map_cache<T>(args.kv, std::min(args.kv.block_tokens, kTokens));
  args.kv.head_dim == 64 ? attend<T, 64>(stream, p) : attend<T, 128>(stream, p);
}

}  // namespace baton::ops::wgmma
