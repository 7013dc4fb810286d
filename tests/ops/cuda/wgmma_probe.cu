// Checks what attention_wgmma.cu is built on, piece by piece, on a Hopper GPU, so that one run
// tells which assumption is wrong; then the whole against a plain kernel; then its speed. Not a
// test that runs by itself: `wgmma_probe [pieces|check|time]`, all three without an argument.
#include <cmath>
#include <cstring>
#include <random>

#include "common/ops/cuda/attention_wgmma.cuh"
#include "common/ops/cuda/attention_wgmma.h"
#include "tests/ops/cuda/wgmma_probe.cuh"

namespace baton::ops {
namespace {

using namespace hopper;

constexpr uint32_t kPanel = wgmma::kPanelBytes;

std::vector<bf16> random_values(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<bf16> v(count, bf16());
  for (bf16& x : v) x = __float2bfloat16_rn(normal(random));
  return v;
}

// Where column c of row r of a panelled operand stands.
__host__ __device__ uint32_t swizzled(uint32_t r, uint32_t c) {
  return c / 64 * kPanel + r * 128 + ((c % 64 / 8) ^ (r % 8)) * 16 + c % 8 * 2;
}

// ---- Pieces. One warpgroup each.

__device__ std::byte* aligned_shared() {
  extern __shared__ std::byte unaligned[];
  return unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
}
__device__ void fill_panels(std::byte* to, const bf16* from, uint32_t rows, uint32_t columns) {
  for (uint32_t i = threadIdx.x; i < rows * columns; i += blockDim.x) {
    *reinterpret_cast<bf16*>(to + swizzled(i / columns, i % columns)) = from[i];
  }
}
template <int kCount>
__device__ void write_accumulators(const float (&d)[kCount], float* out) {
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const uint32_t row = threadIdx.x / 32 * 16 + lane / 4 + i / 2 % 2 * 8;
    out[row * kCount * 2 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
  }
}

// scores[64, 128] = q[64, 128] k[128, 128]^T over the first kColumns of head_dim.
template <uint32_t kColumns>
__global__ void __launch_bounds__(128) probe_k_major(const bf16* q, const bf16* k, float* scores) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  std::byte* const shared = aligned_shared();
  fill_panels(shared, q, 64, 128);
  fill_panels(shared + 2 * kPanel, k, 128, 128);
  publish_to_async();
  __syncthreads();
  const uint64_t a = k_major(shared_address(shared));
  const uint64_t b = k_major(shared_address(shared + 2 * kPanel));
  float s[64];
  wgmma_fence();
  wgmma_k_k<bf16, false>(s, a, b);
#pragma unroll
  for (uint32_t c = 16; c < kColumns; c += 16) {
    const uint32_t on = c / 64 * kPanel + c % 64 * 2;
    wgmma_k_k<bf16, true>(s, advance(a, on), advance(b, on));
  }
  wgmma_commit();
  wgmma_wait<0>(s);
  write_accumulators(s, scores);
#endif
}

// out[64, kHeadDim] = p[64, 128] v[128, kHeadDim], p from registers, over the first kTokens tokens.
template <uint32_t kHeadDim, uint32_t kTokens>
__global__ void __launch_bounds__(128)
    probe_mn_major(const bf16* p, const bf16* v, uint32_t leading, uint32_t stride, float* out) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  std::byte* const shared = aligned_shared();
  fill_panels(shared, v, 128, kHeadDim);
  publish_to_async();
  __syncthreads();
  const uint64_t b = descriptor(shared_address(shared), leading, stride);
  const uint32_t lane = threadIdx.x % 32;
  uint32_t a[kTokens / 4];
#pragma unroll
  for (uint32_t i = 0; i < kTokens / 4; ++i) {
    const uint32_t row = threadIdx.x / 32 * 16 + lane / 4 + i % 2 * 8;
    a[i] = *reinterpret_cast<const uint32_t*>(p + row * 128 + i / 2 * 8 + lane % 4 * 2);
  }
  float o[kHeadDim / 2];
#pragma unroll
  for (float& x : o) x = 0;
  wgmma_fence();
#pragma unroll
  for (uint32_t t = 0; t < kTokens; t += 16) wgmma_r_mn<bf16>(o, a + t / 4, advance(b, t * 128));
  wgmma_commit();
  wgmma_wait<0>(o);
  write_accumulators(o, out);
#endif
}

struct CopyProbe {
  CUtensorMap map;
  uint32_t blocks[8];
  uint32_t boxes, box_tokens, head, plane, head_dim;
};

// 128 tokens of a cache as they come to lie in shared memory; *arrived is 1 if the barrier saw all.
__global__ void __launch_bounds__(128)
    probe_copy(const __grid_constant__ CopyProbe p, std::byte* dump, uint32_t* arrived) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ uint64_t barrier;
  std::byte* const shared = aligned_shared();
  const uint32_t bytes = p.head_dim * 128 * sizeof(bf16);
  for (uint32_t i = threadIdx.x; i < bytes; i += 128) shared[i] = std::byte{0xee};
  if (threadIdx.x == 0) {
    barrier_init(shared_address(&barrier), 1);
    barriers_publish();
  }
  publish_to_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier_arrive_expecting(shared_address(&barrier), bytes);
    for (uint32_t b = 0; b < p.boxes; ++b) {
      for (uint32_t c = 0; c < p.head_dim; c += 64) {
        tensor_load(shared_address(shared) + c / 64 * kPanel + b * p.box_tokens * 128, p.map,
                    shared_address(&barrier), c, 0, p.head, p.plane, p.blocks[b]);
      }
    }
  }
  bool done = false;
  for (int i = 0; i < 1000000 && !done; ++i) done = barrier_try(shared_address(&barrier), 0);
  if (threadIdx.x == 0) *arrived = done;
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < bytes; i += 128) dump[i] = shared[i];
#endif
}

// The largest difference of out [64, columns] from sum over k of a[r][k] * b(k, c).
template <class B>
float product_error(const std::vector<float>& out, const std::vector<bf16>& a, uint32_t columns,
                    uint32_t depth, B b) {
  float worst = 0;
  for (uint32_t r = 0; r < 64; ++r) {
    for (uint32_t c = 0; c < columns; ++c) {
      float want = 0;
      for (uint32_t k = 0; k < depth; ++k) want += __bfloat162float(a[r * 128 + k]) * b(k, c);
      const float off = std::fabs(out[r * columns + c] - want);
      worst = off >= worst || std::isnan(off) ? off : worst;
    }
  }
  return worst;
}

template <class... Params, class... Args>
void launch_piece(void (*kernel)(Params...), Args... args) {
  constexpr size_t kShared = 5 * kPanel;
  allow_shared(kernel, kShared);
  kernel<<<1, 128, kShared>>>(args...);
  cuda_must(cudaGetLastError(), "launch of a piece");
  finish(nullptr, "a piece");
}

template <uint32_t kColumns>
void check_k_major() {
  const auto q = random_values(64 * 128, 1), k = random_values(128 * 128, 2);
  const Array<bf16> dq(q), dk(k);
  Array<float> scores(64 * 128);
  launch_piece(probe_k_major<kColumns>, dq.data(), dk.data(), scores.data());
  const float off = product_error(scores.get(), q, 128, kColumns, [&](uint32_t d, uint32_t t) {
    return __bfloat162float(k[t * 128 + d]);
  });
  verdict(text("(a) K-major x K-major, ", kColumns, " of head_dim"), off < 1e-2f,
          text("off by ", off));
}

template <uint32_t kHeadDim, uint32_t kTokens>
void check_mn_major(uint32_t leading, uint32_t stride, bool used) {
  const auto p = random_values(64 * 128, 3), v = random_values(128 * kHeadDim, 4);
  const Array<bf16> dp(p), dv(v);
  Array<float> out(64 * kHeadDim);
  launch_piece(probe_mn_major<kHeadDim, kTokens>, dp.data(), dv.data(), leading, stride,
               out.data());
  const float off = product_error(out.get(), p, kHeadDim, kTokens, [&](uint32_t t, uint32_t c) {
    return __bfloat162float(v[t * kHeadDim + c]);
  });
  const std::string what = text("(b) registers x MN-major, head_dim ", kHeadDim, ", ", kTokens,
                                " tokens, leading ", leading, ", stride ", stride);
  if (used) {
    verdict(what, off < 1e-2f, text("off by ", off));
  } else {
    print(text("      ", what, ": off by ", off,
               off < 1e-2f ? " (RIGHT TOO)" : " (wrong, as meant)"));
  }
}

void check_copy(uint32_t head_dim, uint32_t block_tokens) {
  constexpr uint32_t kBlocks = 11, kHeads = 3;
  Cache cache(head_dim, kHeads, block_tokens, kBlocks);
  auto memory = cache.memory.get();
  for (size_t i = 0; i < memory.size(); ++i) {
    memory[i] = __ushort_as_bfloat16(static_cast<unsigned short>(i * 40503u >> 8));
  }
  cache.memory.put(memory);
  CopyProbe p;
  p.box_tokens = std::min(block_tokens, 128u);
  p.boxes = 128 / p.box_tokens;
  p.map = wgmma::map_cache<bf16>(cache.kv, p.box_tokens);
  p.head = 2;
  p.plane = 1;
  p.head_dim = head_dim;
  for (uint32_t b = 0; b < 8; ++b) p.blocks[b] = (b * 7 + 3) % kBlocks;
  Array<std::byte> dump(head_dim * 128 * 2);
  Array<uint32_t> arrived(1);
  launch_piece(probe_copy, p, dump.data(), arrived.data());
  const auto got = dump.get();
  const std::byte* const all = reinterpret_cast<const std::byte*>(memory.data());
  uint32_t wrong = 0, first = 0, plain = 0;
  for (uint32_t t = 0; t < 128; ++t) {
    for (uint32_t c = 0; c < head_dim; ++c) {
      const size_t from = 2 * cache.kv.plane_stride +
                          p.blocks[t / p.box_tokens] * cache.kv.block_stride +
                          p.plane * cache.kv.plane_stride + p.head * cache.kv.head_stride +
                          t % p.box_tokens * cache.kv.token_stride + c * 2;
      const bool right = std::memcmp(&got[swizzled(t, c)], all + from, 2) == 0;
      if (!right && wrong++ == 0) first = t << 16 | c;
      plain += std::memcmp(&got[c / 64 * kPanel + t * 128 + c % 64 * 2], all + from, 2) == 0;
    }
  }
  verdict(text("(c) copy of 128 tokens, head_dim ", head_dim, ", blocks of ", block_tokens),
          wrong == 0 && arrived.get()[0] == 1,
          text("barrier ", arrived.get()[0] == 1 ? "complete" : "INCOMPLETE", ", ", wrong, " of ",
               128 * head_dim, " elements wrong (first: token ", first >> 16, ", column ",
               first & 0xffff, "); ", plain, " would be right without swizzle"));
}

// ---- The whole

// One block, of head_dim threads, for each row of the sequence and head: the textbook, in f32.
__global__ void plain_attention(const bf16* q, int64_t q_stride, PagedKv kv, SequenceRows s,
                                uint32_t group_heads, float scale, float* out, int64_t out_stride) {
  extern __shared__ float scores[];
  const uint32_t row = s.first_row + blockIdx.x, head = blockIdx.y;
  const uint32_t tokens = s.position + blockIdx.x + 1;
  const bf16* const query = q + row * q_stride + head * kv.head_dim;
  for (uint32_t t = threadIdx.x; t < tokens; t += blockDim.x) {
    const auto* const key =
        reinterpret_cast<const bf16*>(kv_vector(kv, s.block_table, 0, head / group_heads, t));
    float dot = 0;
    for (uint32_t i = 0; i < kv.head_dim; ++i) dot += to_float(query[i]) * to_float(key[i]);
    scores[t] = dot * scale;
  }
  __syncthreads();
  float top = -INFINITY, sum = 0, o = 0;
  for (uint32_t t = 0; t < tokens; ++t) top = fmaxf(top, scores[t]);
  for (uint32_t t = 0; t < tokens; ++t) {
    const float e = expf(scores[t] - top);
    const auto* const value =
        reinterpret_cast<const bf16*>(kv_vector(kv, s.block_table, 1, head / group_heads, t));
    sum += e;
    o += e * to_float(value[threadIdx.x]);
  }
  out[row * out_stride + head * kv.head_dim + threadIdx.x] = o / sum;
}

void check(CudaStream& stream, uint32_t head_dim, uint32_t heads, uint32_t kv_heads,
           uint32_t block_tokens, const std::vector<Rows>& sizes, uint32_t q_gap = 0,
           float q_factor = 1) {
  constexpr uint32_t kMinRows = 2;
  Problem p(head_dim, heads, kv_heads, block_tokens, sizes, q_gap, q_factor);
  std::string what = text("(d) head_dim ", head_dim, ", heads ", heads, "/", kv_heads,
                          ", blocks of ", block_tokens, ":");
  for (size_t i = 0; i < std::min<size_t>(sizes.size(), 4); ++i) {
    what += text(" ", sizes[i].position, "+", sizes[i].rows);
  }
  if (!wgmma_attention_fits(stream.info(), p.args)) return verdict(what, false, "does not fit");
  const auto run = [&] {
    p.clear_out();
    wgmma_attention(stream, p.args, kMinRows);
    finish(stream.handle(), what);
    return p.out.get();
  };
  const auto got = run();
  bool same = true;
  for (int again = 0; again < 2; ++again) {
    const auto other = run();
    same = same && std::memcmp(got.data(), other.data(), p.out.bytes()) == 0;
  }
  Array<float> plain(got.size());
  const auto there = p.device_all.get();
  for (const SequenceRows& s : there) {
    const size_t shared = (s.position + s.num_rows) * sizeof(float);
    allow_shared(plain_attention, shared);
    plain_attention<<<dim3(s.num_rows, heads), head_dim, shared>>>(
        p.q.data(), p.args.q.row_stride, p.cache.kv, s, heads / kv_heads, p.args.scale,
        plain.data(), heads * head_dim);
    cuda_must(cudaGetLastError(), "plain_attention");
  }
  finish(nullptr, "plain_attention");
  const auto want = plain.get();
  float worst = 0;
  size_t wrong = 0, written = 0, first = 0;
  for (const SequenceRows& s : p.all) {
    for (size_t i = size_t{s.first_row} * heads * head_dim;
         i < size_t{s.first_row + s.num_rows} * heads * head_dim; ++i) {
      if (s.num_rows < kMinRows) {
        written += __bfloat16_as_ushort(got[i]) != 0xa5a5;
        continue;
      }
      const float off = std::fabs(__bfloat162float(got[i]) - want[i]);
      if (off > worst) worst = off;
      if (!(off <= 0.004f + 0.01f * std::fabs(want[i])) && wrong++ == 0) first = i;
    }
  }
  std::string detail = text("off by ", worst);
  if (wrong > 0) {
    const size_t row = first / (heads * head_dim), column = first % (heads * head_dim);
    detail += text(", ", wrong, " of ", got.size(), " wrong, first: row ", row, ", head ",
                   column / head_dim, ", column ", column % head_dim, ": ",
                   __bfloat162float(got[first]), " for ", want[first]);
  }
  if (written > 0) detail += text(", ", written, " elements of rows left out were written");
  if (!same) detail += ", runs differ";
  verdict(what, wrong == 0 && written == 0 && same, detail);
}

void check_whole(CudaStream& stream) {
  check(stream, 128, 1, 1, 128, {{0, 64}});
  check(stream, 128, 1, 1, 128, {{0, 128}});
  for (uint32_t rows : {2u, 17u, 127u, 129u, 200u, 256u, 1000u}) {
    check(stream, 128, 4, 1, 16, {{0, rows}});
  }
  for (Rows r : {Rows{16, 128}, Rows{100, 300}, Rows{64, 64}, Rows{191, 130}, Rows{1000, 777}}) {
    check(stream, 128, 4, 2, 16, {r});
    check(stream, 64, 6, 2, 16, {r}, 64);
  }
  for (uint32_t block : {16u, 32u, 64u, 128u, 256u}) {
    for (uint32_t head_dim : {64u, 128u}) {
      check(stream, head_dim, 8, 2, block, {{0, 500}, {37, 1}, {256, 1023}, {5, 64}, {300, 2}});
    }
  }
  check(stream, 128, 8, 8, 16, {{0, 700}}, 0, 8.0f);  // sharp softmax
  check(stream, 64, 128, 8, 16, std::vector<Rows>(80, Rows{50, 20}));
  check(stream, 128, 32, 8, 16, {{0, 2048}, {3000, 1111}});
  check(stream, 128, 32, 8, 64, {{0, 4096}});
}

void time(CudaStream& stream, uint32_t head_dim, uint32_t heads, uint32_t kv_heads,
          uint32_t block_tokens, const std::vector<Rows>& sizes) {
  Problem p(head_dim, heads, kv_heads, block_tokens, sizes, 0, 1);
  cudaEvent_t begin, end;
  cuda_must(cudaEventCreate(&begin), "cudaEventCreate");
  cuda_must(cudaEventCreate(&end), "cudaEventCreate");
  for (int i = 0; i < 3; ++i) wgmma_attention(stream, p.args, 1);
  constexpr int kRuns = 10;
  cuda_must(cudaEventRecord(begin, stream.handle()), "cudaEventRecord");
  const auto host = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) wgmma_attention(stream, p.args, 1);
  const double host_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - host).count();
  cuda_must(cudaEventRecord(end, stream.handle()), "cudaEventRecord");
  finish(stream.handle(), "timing");
  float ms = 0;
  cuda_must(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
  double pairs = 0;
  for (const Rows& r : sizes) {
    pairs += static_cast<double>(r.rows) * r.position + r.rows * (r.rows + 1.0) / 2;
  }
  const double flop = 4.0 * head_dim * heads * pairs;
  print(text("(e) head_dim ", head_dim, ", heads ", heads, "/", kv_heads, ", blocks of ",
             block_tokens, ", ", sizes.size(), " x ", sizes[0].position, "+", sizes[0].rows, ": ",
             ms / kRuns, " ms, ", std::lround(flop / (ms / kRuns) * 1e-9), " TFLOP/s; host ",
             std::lround(host_us / kRuns), " us a call (which waits for the eighth before)"));
}

void time_all(CudaStream& stream) {
  for (uint32_t rows : {2048u, 4096u, 8192u}) {
    for (uint32_t batch : {1u, 2u, 4u}) {
      time(stream, 128, 32, 8, 16, std::vector<Rows>(batch, Rows{0, rows}));
    }
  }
  for (uint32_t block : {32u, 64u, 128u, 256u}) time(stream, 128, 32, 8, block, {{0, 8192}});
  time(stream, 128, 32, 8, 16, {{6144, 2048}});
  time(stream, 128, 32, 8, 16, {{6000, 2000}});
  time(stream, 64, 32, 8, 16, {{0, 8192}});
}

int main_of(std::string_view part) {
  cudaDeviceProp gpu;
  cuda_must(cudaGetDeviceProperties(&gpu, 0), "cudaGetDeviceProperties");
  print(text(gpu.name, ", ", gpu.multiProcessorCount, " multiprocessors"));
  const device::CudaInfo info{.index = 0,
                              .multiprocessors = gpu.multiProcessorCount,
                              .compute_major = gpu.major,
                              .compute_minor = gpu.minor,
                              .l2_bytes = static_cast<size_t>(gpu.l2CacheSize),
                              .shared_bytes = gpu.sharedMemPerBlockOptin,
                              .name = gpu.name};
  CudaStream stream(info);
  if (part.empty() || part == "pieces") {
    check_k_major<16>();
    check_k_major<64>();
    check_k_major<128>();
    check_mn_major<64, 16>(kPanel, 1024, true);
    check_mn_major<64, 128>(kPanel, 1024, true);
    check_mn_major<128, 16>(kPanel, 1024, true);
    check_mn_major<128, 128>(kPanel, 1024, true);
    check_mn_major<128, 128>(1024, kPanel, false);
    for (uint32_t block : {16u, 32u, 64u, 128u, 256u}) {
      check_copy(64, block);
      check_copy(128, block);
    }
  }
  if (part.empty() || part == "check") check_whole(stream);
  if (part.empty() || part == "time") time_all(stream);
  print(failures == 0 ? "all ok" : text(failures, " FAILED"));
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace baton::ops

int main(int argc, char** argv) { return baton::ops::main_of(argc > 1 ? argv[1] : ""); }
