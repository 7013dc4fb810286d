#pragma once

#include "common/ops/cuda/hopper.cuh"
#include "common/ops/cuda/kernel.cuh"

// The device's side of attention_wgmma.h.
//
// One block stays on each multiprocessor and takes work items: 128 query rows of one head. Its
// first warpgroup copies (a warp for Q, one for K, one for V), two more compute, 64 rows each, over
// tiles of 128 tokens, the latest (masked) ones first. The products of one tile run while the
// exponentials of another are computed: in a warpgroup, S = Q K^T of the next tile is issued
// before O += P V of this one; between the two, a token decides whose products are issued next.
namespace baton::ops::wgmma {

using namespace hopper;

constexpr uint32_t kRows = 128;    // queries of a work item, two warpgroups of 64
constexpr uint32_t kTokens = 128;  // of a tile of K or V
constexpr uint32_t kPanelColumns = 64;
constexpr uint32_t kPanelBytes = 128 * 128;  // 128 rows (or tokens) of 64 halves
constexpr size_t kHalfBytes = 2;
constexpr uint32_t kStages = 3;  // tiles of K, and of V, on the way or in use
constexpr uint32_t kThreads = 3 * 128;
constexpr uint32_t kMaxItems = 64;  // that one block takes

template <uint32_t kHeadDim>
constexpr uint32_t kTileBytes = (kHeadDim / kPanelColumns) * kPanelBytes;  // of Q, K or V
template <uint32_t kHeadDim>
constexpr uint32_t kSharedBytes = (1 + 2 * kStages) * kTileBytes<kHeadDim> + 1024;  // aligned

// Up to kRows rows of a sequence, from the host.
struct RowTile {
  uint32_t row = 0;       // of q and out
  uint32_t rows = 0;      // that are the sequence's
  uint32_t position = 0;  // of the first
  uint32_t sequence = 0;
};

struct Params {
  CUtensorMap q;         // [rows][heads * head_dim], boxes of kRows x kPanelColumns
  CUtensorMap kv;        // [block][plane][head][token][head_dim], of box_tokens x kPanelColumns
  const RowTile* tiles;  // most work first
  const SequenceRows* sequences;
  void* out;  // [rows, heads * head_dim]
  int64_t out_stride;
  uint32_t num_items;  // tiles * heads
  uint32_t num_heads;
  uint32_t group_heads;  // query heads of one KV head
  uint32_t block_shift;  // log2 of block_tokens
  uint32_t box_shift;    // log2 of box_tokens
  float scale_log2;      // scale * log2(e)
};

template <class T>
CUtensorMap map_queries(const Tensor& q) {
  return make_tensor_map<T, 2>(q.data, {cuuint64_t(q.cols), cuuint64_t(q.rows)},
                               {cuuint64_t(q.row_stride) * kHalfBytes}, {kPanelColumns, kRows});
}

template <class T>
CUtensorMap map_cache(const PagedKv& kv, uint32_t box_tokens) {
  // Only blocks of the tables are ever asked for; how many there are is not said here.
  constexpr cuuint64_t kBeyondAnyMemory = cuuint64_t{1} << 40;
  const cuuint64_t blocks =
      std::clamp<cuuint64_t>(kBeyondAnyMemory / kv.block_stride, 1, (cuuint64_t{1} << 31) - 1);
  return make_tensor_map<T, 5>(kv.base, {kv.head_dim, kv.block_tokens, kv.num_kv_heads, 2, blocks},
                               {kv.token_stride, kv.head_stride, kv.plane_stride, kv.block_stride},
                               {kPanelColumns, box_tokens, 1, 1, 1});
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr uint32_t kComputeWarps = 8;

struct Item {
  const BlockId* blocks;
  uint32_t row, rows, position, head;

  __device__ uint32_t visible() const { return position + rows; }  // tokens, to the last row
  __device__ uint32_t tiles() const { return (visible() - 1) / kTokens + 1; }
};

struct Shared {
  uint64_t q_full, q_empty;
  uint64_t k_full[kStages], k_empty[kStages];
  uint64_t v_full[kStages], v_empty[kStages];
  Item items[kMaxItems];
};

// A ring of tiles between a copying warp and the computing ones; each side walks along it.
struct Ring {
  uint32_t tiles;        // shared address of stage 0
  uint32_t full, empty;  // of barrier 0
  uint32_t tile_bytes;
  uint32_t stage = 0;
  uint32_t parity = 0;  // of the round

  __device__ uint32_t tile() const { return tiles + stage * tile_bytes; }
  __device__ uint32_t full_barrier() const { return full + stage * 8; }
  __device__ void wait_full() const { barrier_wait(full_barrier(), parity); }
  __device__ void wait_empty() const { barrier_wait(empty + stage * 8, parity ^ 1); }
  __device__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
  __device__ Ring next() const {
    Ring on = *this;
    on.advance();
    return on;
  }
  // By every computing warp.
  __device__ void release(uint32_t lane) {
    if (lane == 0) barrier_arrive(empty + stage * 8);
    advance();
  }
};

// Items are dealt out back and forth, so that a block that had the longer one of a round gets the
// shorter one of the next. Which tile of rows the block's item i is of, and for which head:
__device__ __forceinline__ uint32_t dealt(uint32_t i) {
  const uint32_t place = i % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
  return i * gridDim.x + place;
}
__device__ __forceinline__ uint32_t num_dealt(const Params& p) {
  const uint32_t rounds = (p.num_items - 1) / gridDim.x + 1;
  return dealt(rounds - 1) < p.num_items ? rounds : rounds - 1;
}

// One warp: Q of each item.
template <uint32_t kHeadDim>
__device__ __forceinline__ void copy_queries(const Params& p, const Shared& shared, uint32_t to,
                                             uint32_t num_items) {
  if (threadIdx.x % 32 != 0) return;
  const uint32_t full = shared_address(&shared.q_full);
  for (uint32_t i = 0; i < num_items; ++i) {
    const Item item = shared.items[i];
    barrier_wait(shared_address(&shared.q_empty), (i & 1) ^ 1);
    barrier_arrive_expecting(full, kTileBytes<kHeadDim>);
#pragma unroll
    for (uint32_t c = 0; c < kHeadDim; c += kPanelColumns) {
      tensor_load(to + c / kPanelColumns * kPanelBytes, p.q, full, item.head * kHeadDim + c,
                  item.row);
    }
  }
}

// One warp: K (plane 0) or V (plane 1) of each item, last tile first. A lane keeps one of 32 block
// ids, and the one of the 32 before; a tile's are of the same 32. Blocks that hold no visible token
// are not touched: there may be none.
template <uint32_t kHeadDim>
__device__ __forceinline__ void copy_plane(const Params& p, const Shared& shared, uint32_t plane,
                                           Ring ring, uint32_t num_items) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t box_tokens = 1u << p.box_shift;
  const uint32_t box_bytes = kPanelColumns * kHalfBytes << p.box_shift;
  for (uint32_t i = 0; i < num_items; ++i) {
    const Item item = shared.items[i];
    const uint32_t head = item.head / p.group_heads;
    const uint32_t num_blocks = ((item.visible() - 1) >> p.block_shift) + 1;
    const auto ids_of = [&](uint32_t chunk) {
      const uint32_t b = chunk * 32 + lane;
      return b < num_blocks ? item.blocks[b].value : 0;
    };
    uint32_t chunk = (item.tiles() - 1) * kTokens >> p.block_shift >> 5;
    uint32_t ids = ids_of(chunk);
    uint32_t ids_before = chunk > 0 ? ids_of(chunk - 1) : 0;
    for (uint32_t tile = item.tiles(); tile-- > 0;) {
      const uint32_t first = tile * kTokens;
      if (first >> p.block_shift >> 5 != chunk) {
        --chunk;
        ids = ids_before;
        if (chunk > 0) ids_before = ids_of(chunk - 1);
      }
      const uint32_t tokens = min(kTokens, item.visible() - first);
      const uint32_t boxes = ((tokens - 1) >> p.box_shift) + 1;
      ring.wait_empty();
      if (lane == 0) {
        barrier_arrive_expecting(ring.full_barrier(),
                                 boxes * box_bytes * (kHeadDim / kPanelColumns));
      }
      for (uint32_t b = 0; b < boxes; ++b) {
        const uint32_t token = first + b * box_tokens;
        const uint32_t block = __shfl_sync(0xffffffffu, ids, token >> p.block_shift & 31);
        if (lane == 0) {
#pragma unroll
          for (uint32_t c = 0; c < kHeadDim; c += kPanelColumns) {
            tensor_load(ring.tile() + c / kPanelColumns * kPanelBytes + b * box_bytes, p.kv,
                        ring.full_barrier(), c, token & ((1u << p.block_shift) - 1), head, plane,
                        block);
          }
        }
      }
      ring.advance();
    }
  }
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ __forceinline__ float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// What a thread knows of its two rows, the second 8 below the first.
struct RowState {
  float max[2] = {-INFINITY, -INFINITY};  // of the scores, unscaled
  float sum[2] = {0, 0};                  // of this lane's exponentials
};

// Scores become exponentials; `rescale` is what earlier exponentials are to be multiplied by. With
// kMask, of row r only columns 8j + e <= last + 8r are seen, maybe none: then all is 0, not NaN.
template <bool kMask>
__device__ __forceinline__ void exponentiate(float (&s)[64], RowState& state, float (&rescale)[2],
                                             float scale_log2, int last) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float top[2] = {state.max[r], -INFINITY};
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& v = s[4 * j + 2 * r + e];
        if (kMask && 8 * j + e > last + 8 * r) v = -INFINITY;
        top[e] = fmaxf(top[e], v);
      }
    }
    const float now = quad_max(fmaxf(top[0], top[1]));
    const float zero_at = kMask && now == -INFINITY ? 0.0f : now * scale_log2;
    rescale[r] = exp2_fast(state.max[r] * scale_log2 - zero_at);
    state.max[r] = now;
    float sum[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& v = s[4 * j + 2 * r + e];
        v = exp2_fast(fmaf(v, scale_log2, -zero_at));
        sum[e] += v;
      }
    }
    state.sum[r] = fmaf(state.sum[r], rescale[r], sum[0] + sum[1]);
  }
}

// Exponentials as the A operand of the product with V.
template <class T>
__device__ __forceinline__ void to_operand(const float (&s)[64], uint32_t (&p)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) p[i] = pack<T>(s[2 * i], s[2 * i + 1]);
}

// Lane t of four holds a[k] = m[t][k], and gets m[k][t].
__device__ __forceinline__ void quad_transpose(uint32_t (&a)[4], uint32_t lane) {
#pragma unroll
  for (uint32_t bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (uint32_t k = 0; k < 4; ++k) {
      if ((k & bit) != 0) continue;
      const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? a[k] : a[k + bit], bit);
      (upper ? a[k] : a[k + bit]) = got;
    }
  }
}

// One warpgroup of the two that compute: rows [64 group, 64 group + 64) of each item.
template <class T, uint32_t kHeadDim>
class Computer {
 public:
  __device__ __forceinline__ Computer(const Params& p, const Shared& shared, uint32_t q, Ring k,
                                      Ring v)
      : p_(p),
        shared_(shared),
        group_(__shfl_sync(0xffffffffu, threadIdx.x / 128 - 1, 0)),  // uniform, to the compiler
        k_(k),
        v_(v),
        q_(k_major(q + group_ * 64 * 128)) {
    if (group_ == 1) pass_token();  // the first warpgroup starts
  }

  __device__ __forceinline__ void run(uint32_t num_items) {
    for (uint32_t i = 0; i < num_items; ++i) attend(shared_.items[i], i & 1);
  }

 private:
  // Named barriers; 0 is __syncthreads.
  static constexpr uint32_t kToken = 1;       // and 2
  static constexpr uint32_t kOwnBarrier = 3;  // and 4

  __device__ static uint32_t lane() { return threadIdx.x % 32; }
  __device__ void await_token() const { named_sync(kToken + group_, 256); }
  __device__ void pass_token() const { named_arrive(kToken + (group_ ^ 1), 256); }

  __device__ __forceinline__ void attend(const Item& item, uint32_t q_parity) {
    const uint32_t row = 64 * group_ + threadIdx.x % 128 / 32 * 16 + lane() / 4;
    // Of a tile from token 0 on, the last column that is seen, counted from the lane's first.
    const int last = static_cast<int>(item.position + row) - 2 * static_cast<int>(lane() % 4);
    const int num_tiles = item.tiles();
    // Tiles from here on may hold tokens that the warpgroup's first row does not see.
    const int first_masked = (item.position + 64 * group_ + 1) / kTokens;

    RowState state;
    float o[kHeadDim / 2];
#pragma unroll
    for (float& v : o) v = 0;
    float s[64];
    uint32_t p[32];
    float rescale[2];
    barrier_wait(shared_address(&shared_.q_full), q_parity);
    k_.wait_full();
    start_scores(s);
    wgmma_wait<0>(s);
    release_keys(num_tiles == 1);
    exponentiate<true>(s, state, rescale, p_.scale_log2,
                       last - (num_tiles - 1) * static_cast<int>(kTokens));
    to_operand<T>(s, p);
    v_.wait_full();
    if (item.visible() % kTokens != 0) clear_unseen(item.visible() % kTokens);

    int tile = num_tiles - 2;
    for (; tile >= first_masked; --tile) step<true>(tile, last, s, p, o, state);
    for (; tile >= 0; --tile) step<false>(tile, last, s, p, o, state);

    start_output(o, p);
    wgmma_wait<0>(o);
    v_.release(lane());
    write(item, row, o, state);
  }

  // S of `tile`, O of the tile before it, whose exponentials are p.
  template <bool kMask>
  __device__ __forceinline__ void step(int tile, int last, float (&s)[64], uint32_t (&p)[32],
                                       float (&o)[kHeadDim / 2], RowState& state) {
    k_.wait_full();
    await_token();
    start_scores(s);
    start_output(o, p);
    pass_token();
    wgmma_wait<1>(s);
    release_keys(tile == 0);
    float rescale[2];
    exponentiate<kMask>(s, state, rescale, p_.scale_log2, last - tile * static_cast<int>(kTokens));
    // The compiler would wait for the product with V first; not across this loop.
    pin(s);
    v_.next().wait_full();
    wgmma_wait<0>(o);
    v_.release(lane());
    to_operand<T>(s, p);
#pragma unroll
    for (uint32_t i = 0; i < kHeadDim / 2; ++i) o[i] *= rescale[i / 2 % 2];
  }

  __device__ __forceinline__ void start_scores(float (&s)[64]) {
    const uint64_t k = k_major(k_.tile());
    wgmma_fence();
    wgmma_k_k<T, false>(s, q_, k);
#pragma unroll
    for (uint32_t c = 16; c < kHeadDim; c += 16) {
      const uint32_t on = c / kPanelColumns * kPanelBytes + c % kPanelColumns * kHalfBytes;
      wgmma_k_k<T, true>(s, advance(q_, on), advance(k, on));
    }
    wgmma_commit();
  }
  __device__ __forceinline__ void start_output(float (&o)[kHeadDim / 2], const uint32_t (&p)[32]) {
    const uint64_t v = mn_major(v_.tile(), kPanelBytes);
    wgmma_fence();
#pragma unroll
    for (uint32_t t = 0; t < kTokens; t += 16) wgmma_r_mn<T>(o, p + t / 4, advance(v, t * 128));
    wgmma_commit();
  }
  // With the last tile's, Q is free, too.
  __device__ __forceinline__ void release_keys(bool is_last) {
    if (is_last && lane() == 0) barrier_arrive(shared_address(&shared_.q_empty));
    k_.release(lane());
  }

  // V of tokens that no row sees, in the item's last tile: anything, and 0 * NaN is NaN. Both
  // warpgroups write the same zeros, each before it reads.
  __device__ __forceinline__ void clear_unseen(uint32_t seen) {
    for (uint32_t panel = 0; panel < kHeadDim / kPanelColumns; ++panel) {
      for (uint32_t at = seen * 128 + threadIdx.x % 128 * 16; at < kPanelBytes; at += 128 * 16) {
        asm volatile(
            "st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(v_.tile() + panel * kPanelBytes + at),
            "r"(0)
            : "memory");
      }
    }
    publish_to_async();
    named_sync(kOwnBarrier + group_, 128);
  }

  __device__ __forceinline__ void write(const Item& item, uint32_t row, float (&o)[kHeadDim / 2],
                                        const RowState& state) {
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      const float one_over = 1.0f / quad_sum(state.sum[r]);
      T* const to = static_cast<T*>(p_.out) + (item.row + row + 8 * r) * p_.out_stride +
                    item.head * kHeadDim + 8 * (lane() % 4);
#pragma unroll
      for (uint32_t c = 0; c < kHeadDim; c += 32) {
        uint32_t a[4];
#pragma unroll
        for (uint32_t k = 0; k < 4; ++k) {
          const uint32_t at = c / 2 + 4 * k + 2 * r;
          a[k] = pack<T>(o[at] * one_over, o[at + 1] * one_over);
        }
        quad_transpose(a, lane());
        if (row + 8 * r < item.rows) {
          *reinterpret_cast<uint4*>(to + c) = make_uint4(a[0], a[1], a[2], a[3]);
        }
      }
    }
  }

  const Params& p_;
  const Shared& shared_;
  const uint32_t group_;
  Ring k_, v_;
  const uint64_t q_;  // descriptor
};

#endif

// out = softmax(q K^T * scale) V, causal, over a paged cache. Of Llama 3 8B (32 heads on 8, 128) at
// 8192 tokens that is 4 * 128 * 32 * 8192^2 / 2 = 550 GFLOP on 200 MB: the roof is the matrix
// units'. Each item reads its K and V from L2: 64 KiB for 8.4 MFLOP.
template <class T, uint32_t kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    attention_wgmma_kernel(const __grid_constant__ Params p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ Shared shared;
  extern __shared__ std::byte unaligned[];
  const uint32_t q = (shared_address(unaligned) + 1023) / 1024 * 1024;
  const uint32_t k = q + kTileBytes<kHeadDim>;
  const uint32_t v = k + kStages * kTileBytes<kHeadDim>;
  if (threadIdx.x == 0) {
    barrier_init(shared_address(&shared.q_full), 1);
    barrier_init(shared_address(&shared.q_empty), kComputeWarps);
    for (uint32_t s = 0; s < kStages; ++s) {
      barrier_init(shared_address(&shared.k_full[s]), 1);
      barrier_init(shared_address(&shared.v_full[s]), 1);
      barrier_init(shared_address(&shared.k_empty[s]), kComputeWarps);
      barrier_init(shared_address(&shared.v_empty[s]), kComputeWarps);
    }
    barriers_publish();
    tensor_prefetch(p.q);
    tensor_prefetch(p.kv);
  }
  // The tiles are the host's: they are there before the kernels ahead have finished.
  const uint32_t num_items = num_dealt(p);
  RowTile tile;
  uint32_t head = 0;
  if (threadIdx.x < num_items) {
    const uint32_t item = dealt(threadIdx.x);
    tile = p.tiles[item / p.num_heads];
    head = item % p.num_heads;
  }
  wait_for_inputs();
  let_next_start();
  if (threadIdx.x < num_items) {
    shared.items[threadIdx.x] = {p.sequences[tile.sequence].block_table, tile.row, tile.rows,
                                 tile.position, head};
  }
  __syncthreads();

  const Ring keys{k, shared_address(shared.k_full), shared_address(shared.k_empty),
                  kTileBytes<kHeadDim>};
  const Ring values{v, shared_address(shared.v_full), shared_address(shared.v_empty),
                    kTileBytes<kHeadDim>};
  if (threadIdx.x < 128) {
    give_registers<40>();
    const uint32_t warp = threadIdx.x / 32;
    if (warp == 0) copy_plane<kHeadDim>(p, shared, 0, keys, num_items);
    if (warp == 1) copy_plane<kHeadDim>(p, shared, 1, values, num_items);
    if (warp == 2) copy_queries<kHeadDim>(p, shared, q, num_items);
  } else {
    take_registers<232>();
    Computer<T, kHeadDim>(p, shared, q, keys, values).run(num_items);
  }
#endif
}

}  // namespace baton::ops::wgmma
