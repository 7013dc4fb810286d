// Checks and times gemv on a GPU, by itself: gemv_probe [check|time], both without a word.
// Exits with 1 if a check fails. Figures stand beside cuBLASLt's, if its library can be loaded.
#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string_view>
#include <vector>

#include "common/ops/cuda/functions.h"
#include "common/ops/cuda/gemv.h"
#include "common/ops/cuda/kernel.cuh"

namespace baton::ops {
namespace {

using device::Buffer;
using device::cuda_must;

struct Shape {
  int64_t n, k;
};
constexpr Shape kModels[] = {{6144, 4096},   {4096, 4096}, {28672, 4096}, {4096, 14336},
                             {128256, 4096}, {960, 576},   {576, 576},    {3072, 576},
                             {576, 1536},    {49152, 576}};
// Ends of tiles, chunks and warps.
constexpr Shape kOdd[] = {{1, 8},       {17, 8},    {997, 72},   {100, 1160},
                          {2113, 320},  {1058, 64}, {2130, 456}, {4098, 584},
                          {8454, 1224}, {300, 768}, {300, 896}};

device::CudaInfo gpu() {
  cudaDeviceProp p;
  cuda_must(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  return {.index = 0,
          .multiprocessors = p.multiProcessorCount,
          .compute_major = p.major,
          .compute_minor = p.minor,
          .l2_bytes = static_cast<size_t>(p.l2CacheSize),
          .shared_bytes = p.sharedMemPerBlockOptin,
          .name = p.name};
}

template <class T>
struct Array {
  explicit Array(int64_t count) : count(count) {
    auto made = device::allocate_cuda(static_cast<size_t>(count) * sizeof(T));
    if (!made) cuda_must(cudaErrorMemoryAllocation, "the probe's memory");
    buffer = std::move(*made);
    poison();
  }
  T* data() const { return reinterpret_cast<T*>(buffer.data()); }
  void poison() const {  // NaN in every type
    cuda_must(cudaMemset(data(), 0xff, static_cast<size_t>(count) * sizeof(T)), "cudaMemset");
    cuda_must(cudaDeviceSynchronize(), "cudaMemset");
  }
  std::vector<T> host() const {
    std::vector<T> v(static_cast<size_t>(count));
    cuda_must(cudaMemcpy(v.data(), data(), v.size() * sizeof(T), cudaMemcpyDeviceToHost),
              "cudaMemcpy");
    return v;
  }
  Buffer buffer;
  int64_t count;
};

// Uniform in [-scale, scale], by a hash of seed and place; columns from `cols` to `stride` stay.
template <class T>
__global__ void fill_kernel(T* p, int64_t rows, int64_t cols, int64_t stride, uint32_t seed,
                            float scale) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * cols; i += step) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u ^ seed * 0x9e3779b9u ^
                 static_cast<uint32_t>(i >> 32);
    h = (h ^ h >> 16) * 0x7feb352du;
    h = (h ^ h >> 15) * 0x846ca68bu;
    h ^= h >> 16;
    p[i / cols * stride + i % cols] =
        from_float<T>((static_cast<float>(h >> 8) / 8388608.0f - 1.0f) * scale);
  }
}
template <class T>
void fill(T* p, int64_t rows, int64_t cols, int64_t stride, uint32_t seed, float scale) {
  if (rows == 0) return;
  fill_kernel<<<1024, 256>>>(p, rows, cols, stride, seed, scale);
  cuda_must(cudaDeviceSynchronize(), "fill");
}

// out [m, n] = x * w^T in f64, a warp an output.
__global__ void naive_kernel(const bf16* x, int64_t x_stride, const bf16* w, int64_t n, int64_t k,
                             double* out) {
  const int64_t col = int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (col >= n) return;
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < k; i += 32) {
    sum += double{to_float(x[blockIdx.y * x_stride + i])} * double{to_float(w[col * k + i])};
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
  if (threadIdx.x % 32 == 0) out[blockIdx.y * n + col] = sum;
}

int failures = 0;

void expect(bool ok, const char* what, Shape s, int64_t m) {
  if (ok) return;
  if (++failures <= 40) {
    std::printf("FAILED %s: n=%ld k=%ld m=%ld\n", what, long{s.n}, long{s.k}, long{m});
  }
}

template <class T>
bool same_bits(const T* a, const T* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(T)) == 0;
}

// The inputs of one shape's checks; NaN in the gaps between rows of x.
struct Case {
  explicit Case(Shape s)
      : s(s),
        x_stride(s.k + 8),
        out_stride(s.n + 5),
        x(kMaxGemvRows * x_stride),
        w(s.n * s.k),
        bias(s.n) {
    fill(x.data(), kMaxGemvRows, s.k, x_stride, 1, 1.0f);
    fill(w.data(), s.n, s.k, s.k, 2, 1.0f / std::sqrt(static_cast<float>(s.k)));
    fill(bias.data(), 1, s.n, s.n, 3, 1.0f);
    Array<double> reference_out(kMaxGemvRows * s.n);
    naive_kernel<<<dim3(static_cast<unsigned>(ceil_div<int64_t>(s.n, 8)), kMaxGemvRows), 256>>>(
        x.data(), x_stride, w.data(), s.n, s.k, reference_out.data());
    cuda_must(cudaDeviceSynchronize(), "naive");
    reference = reference_out.host();
  }
  GemvArgs args(int64_t m) const {
    return {.x = x.data(),
            .x_stride = x_stride,
            .m = m,
            .w = w.data(),
            .n = s.n,
            .k = s.k,
            .out_stride = out_stride};
  }
  const Shape s;
  const int64_t x_stride, out_stride;
  Array<bf16> x;
  Array<bf16> w;
  Array<float> bias;
  std::vector<double> reference;
};

// Runs it on fresh NaNs (or on ones, to be added to); the gaps between rows must stay NaN.
template <class T>
std::vector<T> product(CudaStream& stream, const Case& c, GemvArgs args, int64_t cols) {
  Array<T> out((args.m + 1) * args.out_stride);
  if (args.accumulate) {
    std::vector<T> ones(static_cast<size_t>(out.count), T(1.0f));
    for (int64_t r = 0; r <= args.m; ++r) {
      const int64_t used = r < args.m ? cols : 0;
      void* gap = ones.data() + r * args.out_stride + used;
      std::memset(gap, 0xff, static_cast<size_t>(args.out_stride - used) * sizeof(T));
    }
    cuda_must(cudaMemcpy(out.data(), ones.data(), ones.size() * sizeof(T), cudaMemcpyHostToDevice),
              "cudaMemcpy");
    cuda_must(cudaDeviceSynchronize(), "cudaMemcpy");
  }
  args.out = out.data();
  args.out_f32 = std::is_same_v<T, float>;
  gemv(stream, args);
  stream.synchronize();
  std::vector<T> all = out.host(), rows;
  for (int64_t r = 0; r <= args.m; ++r) {
    const T* row = all.data() + r * args.out_stride;
    const int64_t used = r < args.m ? cols : 0;
    const auto* gap = reinterpret_cast<const unsigned char*>(row + used);
    const bool intact =
        std::all_of(gap, reinterpret_cast<const unsigned char*>(row + args.out_stride),
                    [](unsigned char b) { return b == 0xff; });
    expect(intact, "writes beside its rows", c.s, args.m);
    rows.insert(rows.end(), row, row + used);
  }
  return rows;
}

template <class T>
bool is_close(const Case& c, const std::vector<T>& out, int64_t m, const float* bias, float add) {
  for (int64_t i = 0; i < m * c.s.n; ++i) {
    const double want =
        c.reference[static_cast<size_t>(i)] + (bias != nullptr ? bias[i % c.s.n] : 0) + add;
    const double got = static_cast<double>(static_cast<float>(out[static_cast<size_t>(i)]));
    const double allowed = 1e-4 + (sizeof(T) == 2 ? std::abs(want) / 256 : 0);
    if (!(std::abs(got - want) <= allowed)) {
      std::printf("  [%ld, %ld]: %g, not %g\n", long{i / c.s.n}, long{i % c.s.n}, got, want);
      return false;
    }
  }
  return true;
}

void check_plain(CudaStream& stream, Case& c) {
  const int64_t n = c.s.n;
  const std::vector<float> all = product<float>(stream, c, c.args(kMaxGemvRows), n);
  expect(is_close(c, all, kMaxGemvRows, nullptr, 0), "product", c.s, kMaxGemvRows);
  const std::vector<float> bias = c.bias.host();
  for (int64_t m = 1; m <= kMaxGemvRows; ++m) {
    GemvArgs a = c.args(m);
    const auto first = product<float>(stream, c, a, n);
    expect(same_bits(first.data(), all.data(), m * n), "rows' bits by m", c.s, m);
    const int64_t from = kMaxGemvRows - m;  // the same rows elsewhere
    a.x += from * c.x_stride;
    const auto last = product<float>(stream, c, a, n);
    expect(same_bits(last.data(), all.data() + from * n, m * n), "rows' bits by place", c.s, m);
    a = c.args(m);
    a.bias = c.bias.data();
    expect(is_close(c, product<bf16>(stream, c, a, n), m, bias.data(), 0), "bias, bf16", c.s, m);
    a.accumulate = true;
    expect(is_close(c, product<float>(stream, c, a, n), m, bias.data(), 1), "accumulate", c.s, m);
    expect(is_close(c, product<bf16>(stream, c, a, n), m, bias.data(), 1), "accumulate, bf16", c.s,
           m);
  }
}

void check_silu(CudaStream& stream, Case& c) {
  if (c.s.n % 2 != 0) return;
  const int64_t inter = c.s.n / 2;
  Array<bf16> gate_up(kMaxGemvRows * c.s.n), out(kMaxGemvRows * inter);
  for (const int64_t m : {1, 2, 3, 8, 9, 16}) {
    GemvArgs a = c.args(m);
    a.out = gate_up.data();
    a.out_stride = c.s.n;
    gemv(stream, a);
    cuda_silu_mul(stream, Tensor::matrix(gate_up.data(), DType::kBF16, m, c.s.n),
                  Tensor::matrix(out.data(), DType::kBF16, m, inter));
    stream.synchronize();
    const auto want = out.host();
    a = c.args(m);
    a.silu = true;
    const auto got = product<bf16>(stream, c, a, inter);
    expect(same_bits(got.data(), want.data(), m * inter), "silu's bits", c.s, m);
  }
}

void check_norm(CudaStream& stream, Case& c) {
  const int64_t k = c.s.k;
  Array<float> x(kMaxGemvRows * c.x_stride), weight(k);
  Array<bf16> normed(kMaxGemvRows * k);
  fill(x.data(), kMaxGemvRows, k, c.x_stride, 5, 3.0f);
  fill(weight.data(), 1, k, k, 6, 2.0f);
  for (const int64_t m : {1, 2, 7, 8, 9, 16}) {
    cuda_rms_norm(stream, Tensor::matrix(x.data(), DType::kF32, m, k, c.x_stride), weight.data(),
                  1e-5f, Tensor::matrix(normed.data(), DType::kBF16, m, k));
    for (const bool silu : {false, true}) {
      if (silu && c.s.n % 2 != 0) continue;
      const int64_t cols = silu ? c.s.n / 2 : c.s.n;
      GemvArgs a = c.args(m);
      a.silu = silu;
      a.x = normed.data();
      a.x_stride = k;
      const auto want = product<bf16>(stream, c, a, cols);
      a.x = nullptr;
      a.x_stride = c.x_stride;
      a.norm_x = x.data();
      a.norm_weight = weight.data();
      a.norm_eps = 1e-5f;
      const auto got = product<bf16>(stream, c, a, cols);
      expect(same_bits(got.data(), want.data(), m * cols), "norm's bits", c.s, m);
    }
  }
}

void check(CudaStream& stream) {
  std::vector<Shape> shapes(std::begin(kOdd), std::end(kOdd));
  shapes.insert(shapes.end(), std::begin(kModels), std::end(kModels));
  for (const Shape s : shapes) {
    Case c(s);
    const int before = failures;
    check_plain(stream, c);
    check_silu(stream, c);
    check_norm(stream, c);
    std::printf("check n=%ld k=%ld: %s\n", long{s.n}, long{s.k},
                failures == before ? "ok" : "FAILED");
    std::fflush(stdout);
  }
}

struct Timer {
  Timer() {
    cuda_must(cudaEventCreate(&begin), "cudaEventCreate");
    cuda_must(cudaEventCreate(&end), "cudaEventCreate");
  }
  ~Timer() {
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  // Microseconds of what `work` enqueues: the least of some runs, after one that warms up.
  double best(CudaStream& stream, int runs, const std::function<void()>& work) const {
    double least = 1e30;
    for (int i = 0; i <= runs; ++i) {
      cuda_must(cudaEventRecord(begin, stream.handle()), "cudaEventRecord");
      work();
      cuda_must(cudaEventRecord(end, stream.handle()), "cudaEventRecord");
      stream.synchronize();
      float ms = 0;
      cuda_must(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
      if (i > 0) least = std::min(least, ms * 1e3);
    }
    return least;
  }
  cudaEvent_t begin, end;
};

// Microseconds each of `count` calls, recorded into one graph; 0 if it cannot be recorded.
double in_graph(CudaStream& stream, const Timer& timer, int count,
                const std::function<void(int)>& call) {
  call(0);
  stream.synchronize();
  stream.begin_capture();
  for (int i = 0; i < count; ++i) call(i);
  const auto graph = stream.end_capture();
  if (graph == nullptr) return 0;
  return timer.best(stream, 4, [&] { stream.launch(*graph); }) / count;
}

// cuBLASLt, found while running.
class Blas {
 public:
  Blas() : library_(dlopen("libcublasLt.so.13", RTLD_NOW)) {
    if (library_ == nullptr) library_ = dlopen("/usr/local/cuda/lib64/libcublasLt.so.13", RTLD_NOW);
    if (library_ == nullptr) std::printf("no cuBLASLt: %s\n", dlerror());
  }
  // Microseconds of the best of eight proposals; 0 if there is none. w(i) is call i's.
  double best(CudaStream& stream, const Timer& timer, Shape s, int64_t m, int count, const bf16* x,
              const std::function<const bf16*(int)>& w, float* out) {
    if (library_ == nullptr) return 0;
#define BATON_FIND(name) \
  const auto name##_ = reinterpret_cast<decltype(&name)>(dlsym(library_, #name))
    BATON_FIND(cublasLtCreate);
    BATON_FIND(cublasLtMatmulDescCreate);
    BATON_FIND(cublasLtMatmulDescSetAttribute);
    BATON_FIND(cublasLtMatrixLayoutCreate);
    BATON_FIND(cublasLtMatmulPreferenceCreate);
    BATON_FIND(cublasLtMatmulPreferenceSetAttribute);
    BATON_FIND(cublasLtMatmulAlgoGetHeuristic);
    BATON_FIND(cublasLtMatmul);
#undef BATON_FIND
    if (handle_ == nullptr) cublasLtCreate_(&handle_);
    cublasLtMatmulDesc_t operation;
    cublasLtMatmulDescCreate_(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtMatmulDescSetAttribute_(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                    sizeof(transposed));
    cublasLtMatrixLayout_t lw, lx, lo;
    const auto n = static_cast<uint64_t>(s.n), k = static_cast<uint64_t>(s.k);
    cublasLtMatrixLayoutCreate_(&lw, CUDA_R_16BF, k, n, s.k);
    cublasLtMatrixLayoutCreate_(&lx, CUDA_R_16BF, k, static_cast<uint64_t>(m), s.k);
    cublasLtMatrixLayoutCreate_(&lo, CUDA_R_32F, n, static_cast<uint64_t>(m), s.n);
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulPreferenceCreate_(&preference);
    const size_t most = kWorkspace;
    cublasLtMatmulPreferenceSetAttribute_(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                          &most, sizeof(most));
    cublasLtMatmulHeuristicResult_t found[8];
    int num = 0;
    cublasLtMatmulAlgoGetHeuristic_(handle_, operation, lw, lx, lo, lo, preference, 8, found, &num);
    double least = 0;
    const float one = 1, zero = 0;
    for (int i = 0; i < num; ++i) {
      const double us = in_graph(stream, timer, count, [&](int call) {
        cublasLtMatmul_(handle_, operation, &one, w(call), lw, x, lx, &zero, out, lo, out, lo,
                        &found[i].algo, workspace_.data(), kWorkspace, stream.handle());
      });
      if (us > 0 && (least == 0 || us < least)) least = us;
    }
    return least;
  }

 private:
  static constexpr size_t kWorkspace = size_t{32} << 20;
  void* library_;
  cublasLtHandle_t handle_ = nullptr;
  Array<std::byte> workspace_{kWorkspace};
};

double gbps(double bytes, double us) { return us > 0 ? bytes / us / 1e3 : 0; }

void time_shape(CudaStream& stream, const Timer& timer, Blas& blas, Shape s) {
  const double bytes = 2.0 * static_cast<double>(s.n * s.k);
  const int copies = static_cast<int>(4e8 / bytes) + 2;  // in turn: no L2 keeps them
  const int count = std::max(copies, 24);
  Array<bf16> w(copies * s.n * s.k), x(kMaxGemvRows * s.k);
  Array<float> out(kMaxGemvRows * s.n), norm_x(kMaxGemvRows * s.k), weight(s.k);
  fill(w.data(), copies, s.n * s.k, s.n * s.k, 1, 0.1f);
  fill(x.data(), kMaxGemvRows, s.k, s.k, 2, 1.0f);
  fill(norm_x.data(), kMaxGemvRows, s.k, s.k, 3, 1.0f);
  fill(weight.data(), 1, s.k, s.k, 4, 1.0f);
  const auto weights = [&](int i) { return w.data() + i % copies * s.n * s.k; };
  for (const int64_t m : {1, 2, 4, 8, 16}) {
    GemvArgs a = {.x = x.data(),
                  .x_stride = s.k,
                  .m = m,
                  .n = s.n,
                  .k = s.k,
                  .out = out.data(),
                  .out_stride = s.n,
                  .out_f32 = true};
    const auto call = [&](int i) {
      a.w = weights(i);
      gemv(stream, a);
    };
    int turn = 0;
    const double alone = timer.best(stream, 20, [&] { call(turn++); });
    const double chain = in_graph(stream, timer, count, call);
    const double lt = blas.best(stream, timer, s, m, count, x.data(), weights, out.data());
    a.silu = true;
    a.out_f32 = false;
    a.out_stride = s.n / 2;
    const double silu = in_graph(stream, timer, count, call);
    a.norm_x = norm_x.data();
    a.norm_weight = weight.data();
    a.x = nullptr;
    const double norm = in_graph(stream, timer, count, call);
    std::printf(
        "n=%6ld k=%5ld m=%2ld: alone %7.2f us %5.0f GB/s, in a graph %7.2f us %5.0f GB/s; "
        "cuBLASLt %7.2f us %5.0f GB/s; silu %7.2f us, norm + silu %7.2f us\n",
        long{s.n}, long{s.k}, long{m}, alone, gbps(bytes, alone), chain, gbps(bytes, chain), lt,
        gbps(bytes, lt), silu, norm);
    std::fflush(stdout);
  }
}

// The four products of a Llama-3-8B layer, layer after layer.
void time_layers(CudaStream& stream, const Timer& timer) {
  constexpr int kLayers = 6;
  constexpr int64_t kHidden = 4096, kInter = 14336, kQkv = 6144;
  constexpr int64_t kLayer = (kQkv + kHidden + 3 * kInter) * kHidden;
  Array<bf16> w(kLayers * kLayer), x(kMaxGemvRows * kInter), qkv(kMaxGemvRows * kQkv),
      mlp(kMaxGemvRows * kInter);
  Array<float> residual(kMaxGemvRows * kHidden);
  fill(w.data(), kLayers, kLayer, kLayer, 1, 0.001f);
  fill(x.data(), kMaxGemvRows, kInter, kInter, 2, 1.0f);
  fill(residual.data(), kMaxGemvRows, kHidden, kHidden, 3, 1.0f);
  for (const int64_t m : {1, 2, 4, 8, 16}) {
    const double us = in_graph(stream, timer, kLayers, [&](int layer) {
      const bf16* at = w.data() + layer * kLayer;
      const auto step = [&](int64_t n, int64_t k, const bf16* in, void* out, bool silu, bool add) {
        gemv(stream, {.x = in,
                      .x_stride = k,
                      .m = m,
                      .w = at,
                      .n = n,
                      .k = k,
                      .out = out,
                      .out_stride = silu ? n / 2 : n,
                      .out_f32 = add,
                      .accumulate = add,
                      .silu = silu});
        at += n * k;
      };
      step(kQkv, kHidden, x.data(), qkv.data(), false, false);
      step(kHidden, kHidden, x.data(), residual.data(), false, true);
      step(2 * kInter, kHidden, x.data(), mlp.data(), true, false);
      step(kHidden, kInter, mlp.data(), residual.data(), false, true);
    });
    std::printf("Llama-3-8B layer m=%2ld: %7.2f us %5.0f GB/s\n", long{m}, us,
                gbps(2.0 * kLayer, us));
  }
}

int probe(std::string_view what) {
  const device::CudaInfo info = gpu();
  std::printf("%s, %d multiprocessors\n", info.name.c_str(), info.multiprocessors);
  CudaStream stream(info);
  if (what != "time") check(stream);
  if (what != "check") {
    const Timer timer;
    Blas blas;
    time_layers(stream, timer);
    for (const Shape s : kModels) time_shape(stream, timer, blas, s);
  }
  std::printf("%d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace baton::ops

int main(int argc, char** argv) { return baton::ops::probe(argc > 1 ? argv[1] : ""); }
