#include <algorithm>
#include <cassert>

#include "common/ops/cuda/eight.cuh"
#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/xxh3.cuh"

namespace baton::ops {
namespace {

constexpr int kThreads = 512;
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kAtOnce = 4;  // loads of 16 bytes that a thread has on their way
// The link is slow against a multiprocessor, and the way out runs beside the model's own kernels:
// few blocks fill it. The way in waits for the link's latency, with a step behind it.
constexpr uint32_t kExportBlocks = 8, kImportBlocks = 32;
// From one GPU's memory to another's, or to its own, more is on the way; the model's kernels run
// beside it all the same. Not measured.
constexpr uint32_t kDeviceBlocks = 32;

// Of digests (kvcache/digest.h): a vector counts as parts of so many bytes, eight threads' words.
constexpr uint32_t kPartBytes = 128, kPartWords = kPartBytes / 16;

// As kvcache/digest_place.h has it.
__device__ __forceinline__ uint64_t place_seed(uint32_t layer, uint32_t plane, uint32_t head,
                                               uint32_t position) {
  uint64_t x = uint64_t{layer} << 48 | uint64_t{plane} << 44 | uint64_t{head} << 32 | position;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9;
  x ^= x >> 27;
  x *= 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

struct ExportKv {
  PagedKv kv;  // the layer
  uint32_t layer, head_begin;
  const KvCopyBlock* blocks;
  uint32_t num_blocks;
  std::byte* mirror;
  size_t mirror_stride;
  uint64_t* digests;
  uint32_t vector_bytes, parts;  // of a vector
};

// Copies the vectors of one plane and head by one warp, four parts at a time, each by eight
// threads. Returns the share of the digest that this thread has.
__device__ __forceinline__ uint64_t export_head(const ExportKv& p, const KvCopyBlock& block,
                                                uint32_t plane, uint32_t head) {
  const uint32_t group = threadIdx.x % 32 / kPartWords, word = threadIdx.x % kPartWords;
  const size_t start = plane * p.kv.plane_stride + head * p.kv.head_stride + word * 16;
  const std::byte* from = p.kv.base + block.from * p.kv.block_stride + start;
  std::byte* to = p.mirror + block.to * p.mirror_stride + start;
  const uint32_t tail_bytes = p.vector_bytes - (p.parts - 1) * kPartBytes;
  const Xxh3Secret secret = xxh3_secret(word, kPartWords);
  const uint32_t tail_words = tail_bytes / 16;  // threads behind them are idle
  const Xxh3Secret tail_secret = xxh3_secret(min(word, tail_words - 1), tail_words);
  const uint32_t items = block.num_tokens * p.parts;
  uint64_t digest = 0;
  for (uint32_t first = 0; first < items; first += 4 * kAtOnce) {
    uint4 words[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint32_t item = first + 4 * i + group, token = item / p.parts, part = item % p.parts;
      const bool mine = item < items && (part + 1 < p.parts || word < tail_words);
      words[i] = make_uint4(0, 0, 0, 0);
      if (mine) {
        const size_t at = token * p.kv.token_stride + part * kPartBytes;
        words[i] = *reinterpret_cast<const uint4*>(from + at);
      }
    }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint32_t item = first + 4 * i + group, token = item / p.parts, part = item % p.parts;
      const bool whole = part + 1 < p.parts;
      const bool mine = item < items && (whole || word < tail_words);
      const uint64_t seed =
          place_seed(p.layer, plane, p.head_begin + head, block.position + token) +
          part * kPartBytes;
      uint64_t mix = 0;
      if (mine) {
        const uint4 v = words[i];
        if (p.mirror != nullptr) {
          store_16(to + token * p.kv.token_stride + part * kPartBytes, v.x, v.y, v.z, v.w);
        }
        mix = xxh3_mix(uint64_t{v.y} << 32 | v.x, uint64_t{v.w} << 32 | v.z,
                       whole ? secret : tail_secret, seed);
      }
#pragma unroll
      for (int lane = kPartWords / 2; lane > 0; lane /= 2) {
        mix += __shfl_xor_sync(0xffffffffu, mix, lane);
      }
      if (word == 0 && item < items) digest += xxh3_finish(mix, whole ? kPartBytes : tail_bytes);
    }
  }
  return digest;
}

// The sum of all threads' values, in thread 0; a sum of integers has no order.
__device__ __forceinline__ uint64_t sum_in_first(uint64_t v, uint64_t* of_warp) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) v += __shfl_xor_sync(0xffffffffu, v, lane);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  uint64_t sum = 0;
  if (threadIdx.x == 0) {
    for (uint32_t w = 0; w < kWarps; ++w) sum += of_warp[w];
  }
  __syncthreads();
  return sum;
}

// A thread block takes whole blocks of the cache, one after the other, a warp a plane and head.
// Reads 2 * kv_heads * num_tokens * vector_bytes a block, and writes as much if there is a mirror.
// The roof is the link that one of the two goes over, to the host or to another GPU; where there is
// none, the memory.
__global__ void __launch_bounds__(kThreads) export_layer(ExportKv p) {
  __shared__ uint64_t of_warp[kWarps];
  wait_for_inputs();
  let_next_start();
  if (blockIdx.x >= p.num_blocks) return;
  KvCopyBlock next = p.blocks[blockIdx.x];
  for (uint32_t b = blockIdx.x; b < p.num_blocks; b += gridDim.x) {
    const KvCopyBlock block = next;
    // Lies at the far end of the link: asked for ahead.
    if (b + gridDim.x < p.num_blocks) next = p.blocks[b + gridDim.x];
    const uint32_t heads = p.kv.num_kv_heads;
    uint64_t digest = 0;
    for (uint32_t run = threadIdx.x / 32; run < 2 * heads; run += kWarps) {
      const uint32_t plane = run < heads ? 0 : 1;
      digest += export_head(p, block, plane, run - plane * heads);
    }
    digest = sum_in_first(digest, of_warp);
    if (threadIdx.x == 0) p.digests[b] = digest;
  }
}

struct ImportKv {
  std::byte* cache;
  const std::byte* mirror;
  size_t block_stride, mirror_stride;
  uint32_t words, chunks;  // of a block: 16 bytes, and what a thread block copies at a time
  const KvCopyBlock* blocks;
  uint32_t num_blocks;
};
constexpr uint32_t kChunkWords = kAtOnce * kThreads;

// Whole blocks, chunk by chunk. Reads words * 16 bytes a block over the link from the host, which
// is the roof, and writes as much.
__global__ void __launch_bounds__(kThreads) import_blocks(ImportKv p) {
  wait_for_inputs();
  let_next_start();
  const uint64_t total = uint64_t{p.num_blocks} * p.chunks;
  if (blockIdx.x >= total) return;
  KvCopyBlock next = p.blocks[blockIdx.x / p.chunks];
  for (uint64_t c = blockIdx.x; c < total; c += gridDim.x) {
    const KvCopyBlock block = next;
    if (c + gridDim.x < total) next = p.blocks[(c + gridDim.x) / p.chunks];
    const auto first = static_cast<uint32_t>(c % p.chunks) * kChunkWords + threadIdx.x;
    const auto* from = reinterpret_cast<const uint4*>(p.mirror + block.from * p.mirror_stride);
    auto* to = reinterpret_cast<uint4*>(p.cache + block.to * p.block_stride);
    uint4 words[kAtOnce];
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint32_t at = first + i * kThreads;
      if (at < p.words) words[i] = from[at];
    }
#pragma unroll
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint32_t at = first + i * kThreads;
      if (at < p.words) store_16(to + at, words[i].x, words[i].y, words[i].z, words[i].w);
    }
  }
}

template <class Args>
size_t stride_of(const Args& args) {
  return args.mirror_stride == 0 ? args.kv.block_stride : args.mirror_stride;
}

}  // namespace

void cuda_export_kv(Stream& stream, const ExportKvArgs& args) {
  if (args.blocks.empty()) return;
  const auto vector_bytes = static_cast<uint32_t>(args.kv.head_dim * size_bytes(args.kv.dtype));
  assert(vector_bytes % 32 == 0 && args.kv.token_stride % 16 == 0);
  const auto num_blocks = static_cast<uint32_t>(args.blocks.size());
  const ExportKv p = {.kv = args.kv,
                      .layer = args.layer,
                      .head_begin = args.head_begin,
                      .blocks = args.blocks.data(),
                      .num_blocks = num_blocks,
                      .mirror = args.mirror,
                      .mirror_stride = stride_of(args),
                      .digests = args.digests,
                      .vector_bytes = vector_bytes,
                      .parts = ceil_div(vector_bytes, kPartBytes)};
  launch(cuda_stream(stream), std::min(num_blocks, args.to_device ? kDeviceBlocks : kExportBlocks),
         kThreads, 0, export_layer, p);
}

void cuda_import_kv(Stream& stream, const ImportKvArgs& args) {
  if (args.blocks.empty()) return;
  assert(args.block_bytes % 16 == 0 && args.block_bytes <= args.kv.block_stride);
  const auto words = static_cast<uint32_t>(args.block_bytes / 16);
  const ImportKv p = {.cache = args.kv.base,
                      .mirror = args.mirror,
                      .block_stride = args.kv.block_stride,
                      .mirror_stride = stride_of(args),
                      .words = words,
                      .chunks = ceil_div(words, kChunkWords),
                      .blocks = args.blocks.data(),
                      .num_blocks = static_cast<uint32_t>(args.blocks.size())};
  const uint64_t total = uint64_t{p.num_blocks} * p.chunks;
  launch(cuda_stream(stream), static_cast<unsigned>(std::min<uint64_t>(total, kImportBlocks)),
         kThreads, 0, import_blocks, p);
}

}  // namespace baton::ops
