#include "common/ops/cpu/onednn.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/product_check.h"
#include "common/ops/cpu/row_source.h"

namespace baton::ops {
namespace {

using dnnl::memory;
using MatmulDesc = dnnl::matmul::primitive_desc;

// Rows of one product; more are cut. Bounds the number of kernels, each of which is for one number
// of rows.
constexpr int64_t kMaxRows = 64;
constexpr int64_t kSlicesPerThread = 3;

memory::data_type type_of(DType t) {
  return t == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// Our pool has the threads; each runs a product of its own.
void one_thread_each() { omp_set_num_threads(1); }

// [m, k] x [k, n] into f32. Throws dnnl::error if oneDNN has no such kernel.
MatmulDesc describe(const dnnl::engine& engine, DType type, int64_t m, int64_t n, int64_t k,
                    const memory::desc& weights) {
  one_thread_each();
  const memory::desc x({m, k}, type_of(type), memory::format_tag::ab);
  const memory::desc out({m, n}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
  return MatmulDesc(engine, x, weights, out, attributes);
#else
  return MatmulDesc(dnnl::matmul::desc(x, weights, out), attributes, engine);
#endif
}

bool promises_invariance(std::string_view kernel) { return kernel.starts_with("brg:"); }

memory::desc any_weights(DType type, int64_t n, int64_t k) {
  return memory::desc({k, n}, type_of(type), memory::format_tag::any);
}

// How a blocked matrix [k, n] lies in memory.
struct Blocking {
  explicit Blocking(const memory::desc& d) {
#if DNNL_VERSION_MAJOR >= 3
    const auto s = d.get_strides(), b = d.get_inner_blks(), i = d.get_inner_idxs();
    strides = {s[0], s[1]};
    for (size_t j = 0; j < b.size(); ++j) inner.emplace_back(i[j], b[j]);
#else
    const auto& b = d.data.format_desc.blocking;
    strides = {b.strides[0], b.strides[1]};
    for (int j = 0; j < b.inner_nblks; ++j) inner.emplace_back(b.inner_idxs[j], b.inner_blks[j]);
#endif
  }

  size_t offset(int64_t k, int64_t n) const {
    std::array<int64_t, 2> at = {k, n};
    int64_t offset = 0, step = 1;
    for (auto b = inner.rbegin(); b != inner.rend(); ++b) {
      offset += at[b->first] % b->second * step;
      at[b->first] /= b->second;
      step *= b->second;
    }
    return static_cast<size_t>(offset + at[0] * strides[0] + at[1] * strides[1]);
  }

  std::array<int64_t, 2> strides;
  std::vector<std::pair<int64_t, int64_t>> inner;  // (dimension, block), outermost first
};

struct Kernel {
  dnnl::matmul run;
  memory::desc x, out, scratchpad;
};

// Some neighbouring output features: what one task multiplies with.
struct Slice {
  int64_t begin, count;
  memory::desc layout;
  device::Buffer weights;
};

class OneDnnMatrix final : public CpuMatrix {
 public:
  // `kernel`: the only one to use; any if empty.
  OneDnnMatrix(DType type, int64_t n, int64_t k, std::string kernel)
      : type_(type), n_(n), k_(k), only_(std::move(kernel)) {}

  // Throws dnnl::error.
  status fill(device::Device& device, const RowSource& source) {
    const int64_t threads = device.info().threads;
    const int64_t wanted = threads == 1 ? n_ : n_ / (threads * kSlicesPerThread);
    const int64_t width = std::max<int64_t>((wanted + 63) / 64 * 64, 64);
    for (int64_t begin = 0; begin < n_; begin += width) {
      BATON_CHECK_OK(add_slice(device, source, begin, std::min(width, n_ - begin)));
    }
    for (const Slice* s : {&slices_.front(), &slices_.back()}) {
      for (const int64_t rows : {1, 16, 33}) {
        BATON_CHECK_OK(check_kernel(describe(engine_, type_, rows, s->count, k_, s->layout)));
      }
    }
    return {};
  }

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override {
    size_t sum = 0;
    for (const Slice& s : slices_) sum += s.weights.bytes();
    return sum;
  }

  void read_row(int64_t n, float* out) const override {
    const Slice& s = slices_[static_cast<size_t>(n / slices_[0].count)];
    const Blocking blocking(s.layout);
    for (int64_t i = 0; i < k_; ++i) {
      const size_t at = blocking.offset(i, n - s.begin);
      out[i] = type_ == DType::kF32
                   ? reinterpret_cast<const float*>(s.weights.data())[at]
                   : bf16_to_f32(reinterpret_cast<const uint16_t*>(s.weights.data())[at]);
    }
  }

  void multiply(device::CpuStream& stream, const Tensor& x, const float* bias, const Tensor& out,
                bool accumulate) const override {
    for (int64_t row = 0; row < x.rows; row += kMaxRows) {
      const int64_t rows = std::min(kMaxRows, x.rows - row);
      multiply_block(stream, x.slice_rows(row, rows), bias, out.slice_rows(row, rows), accumulate);
    }
  }

 private:
  template <class T>
  void copy_weights(const RowSource& source, const Slice& s) const {
    std::vector<T> plain(static_cast<size_t>(s.count * k_));
    for (int64_t i = 0; i < s.count; ++i) source.read(s.begin + i, plain.data() + i * k_);
    const memory::desc desc({k_, s.count}, type_of(type_), memory::format_tag::ba);
    memory from(desc, engine_, plain.data()), to(s.layout, engine_, s.weights.data());
    dnnl::stream stream(engine_);
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
  }

  status add_slice(device::Device& device, const RowSource& source, int64_t begin, int64_t count) {
    Slice s = {begin, count, {}, {}};
    const MatmulDesc d =
        describe(engine_, type_, kMaxRows, count, k_, any_weights(type_, count, k_));
    BATON_CHECK_OK(check_kernel(d));
    s.layout = d.weights_desc();
    BATON_TRY(s.weights, device.allocate(s.layout.get_size()));
    if (type_ == DType::kF32) {
      copy_weights<float>(source, s);
    } else {
      copy_weights<uint16_t>(source, s);
    }
    slices_.push_back(std::move(s));
    return {};
  }

  status check_kernel(const MatmulDesc& d) const {
    if (only_.empty() || only_ == d.impl_info_str()) return {};
    return error(Errc::kUnsupported,
                 fmt::format("oneDNN: {} instead of {}", d.impl_info_str(), only_));
  }

  // An operation cannot fail, and with 64 rows this very product was possible.
  [[noreturn]] void fail(int64_t rows, const Slice& s, const char* why) const {
    LOG_ERROR("oneDNN: no kernel for {} rows of [{}, {}]: {}", rows, s.count, k_, why);
    std::abort();
  }

  // The kernel for so many rows of a slice, prepared when first asked for.
  const Kernel& kernel(int64_t rows, const Slice& s) const {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Kernel>& k = kernels_[&s == &slices_.back()][static_cast<size_t>(rows)];
    if (k == nullptr) {
      try {
        const MatmulDesc d = describe(engine_, type_, rows, s.count, k_, s.layout);
        if (!check_kernel(d)) fail(rows, s, d.impl_info_str());
        k = std::make_unique<Kernel>(
            Kernel{dnnl::matmul(d), d.src_desc(), d.dst_desc(), d.scratchpad_desc()});
      } catch (const dnnl::error& e) {
        fail(rows, s, e.what());
      }
    }
    return *k;
  }

  void multiply_block(device::CpuStream& stream, const Tensor& x, const float* bias,
                      const Tensor& out, bool accumulate) const {
    std::byte* rows = stream.shared_scratch(0).get<std::byte>(x.rows * k_ * size_bytes(type_));
    parallel_rows(stream, x.rows, k_, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) copy_row(x, r, rows);
    });
    for (const Slice* s : {&slices_.front(), &slices_.back()}) kernel(x.rows, *s);
    stream.pool().parallel_for(slices_.size(), [&](size_t i, unsigned thread) {
      const Slice& s = slices_[i];
      const float* result = multiply_slice(s, kernel(x.rows, s), rows, stream.scratch(thread));
      for (int64_t r = 0; r < x.rows; ++r) {
        float* to = out.row<float>(r) + s.begin;
        for (int64_t c = 0; c < s.count; ++c) {
          float sum = result[r * s.count + c];
          if (bias != nullptr) sum += bias[s.begin + c];
          if (accumulate) sum += to[c];
          to[c] = sum;
        }
      }
    });
  }

  void copy_row(const Tensor& x, int64_t row, std::byte* rows) const {
    if (type_ == x.dtype) {
      const size_t bytes = static_cast<size_t>(k_) * size_bytes(type_);
      std::memcpy(rows + static_cast<size_t>(row) * bytes, x.at(row), bytes);
    } else {
      const float* from = x.row<float>(row);
      uint16_t* to = reinterpret_cast<uint16_t*>(rows) + row * k_;
      for (int64_t i = 0; i < k_; ++i) to[i] = f32_to_bf16(from[i]);
    }
  }

  // The product [rows, count], in the thread's scratch.
  const float* multiply_slice(const Slice& s, const Kernel& k, std::byte* rows,
                              device::Scratch& scratch) const {
    one_thread_each();
    const size_t out_bytes = (k.out.get_size() + 63) / 64 * 64;
    std::byte* memory_of = scratch.get<std::byte>(out_bytes + k.scratchpad.get_size());
    dnnl::stream stream(engine_);
    k.run.execute(stream,
                  {{DNNL_ARG_SRC, memory(k.x, engine_, rows)},
                   {DNNL_ARG_WEIGHTS, memory(s.layout, engine_, s.weights.data())},
                   {DNNL_ARG_DST, memory(k.out, engine_, memory_of)},
                   {DNNL_ARG_SCRATCHPAD, memory(k.scratchpad, engine_, memory_of + out_bytes)}});
    stream.wait();
    return reinterpret_cast<const float*>(memory_of);
  }

  DType type_;
  int64_t n_, k_;
  std::string only_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::vector<Slice> slices_;  // of equal width, but for the last
  mutable std::mutex mutex_;
  // By (whether it is the last slice, rows).
  mutable std::array<std::array<std::unique_ptr<Kernel>, kMaxRows + 1>, 2> kernels_;
};

}  // namespace

std::string onednn_version() {
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("{}.{}.{}", v->major, v->minor, v->patch);
}

std::string onednn_kernel(DType store) {
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return describe(engine, store, kMaxRows, 576, 576, any_weights(store, 576, 576))
        .impl_info_str();
  } catch (const dnnl::error&) {
    return {};
  }
}

std::string onednn_invariant_kernel(DType store) {
  const std::string name = onednn_kernel(store);
  if (!promises_invariance(name)) return {};
  try {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    for (const auto& [n, k] : {std::pair{576, 576}, {64, 1536}, {3072, 576}, {4096, 4096}}) {
      const memory::desc weights =
          describe(engine, store, kMaxRows, n, k, any_weights(store, n, k)).weights_desc();
      for (const int64_t m : {1, 2, 3, 7, 16, 33, 64}) {
        const MatmulDesc d = describe(engine, store, m, n, k, weights);
        if (name != d.impl_info_str()) return {};
      }
    }
    return name;
  } catch (const dnnl::error&) {
    return {};
  }
}

status check_onednn() {
  return check_products([](const Tensor& weights, unsigned threads) -> result<Product> {
    const std::shared_ptr<device::Device> device = device::make_cpu_device(threads);
    BATON_TRY(auto packed, onednn_pack(*device, {&weights, 1}, DType::kBF16, true));
    const std::shared_ptr<const PackedMatrix> matrix = std::move(packed);
    const std::shared_ptr<device::Stream> stream = device->make_stream();
    return [device, matrix, stream](const Tensor& x, const Tensor& out) {
      cpu_matmul(*stream, x, *matrix, nullptr, out, false);
    };
  });
}

result<std::unique_ptr<PackedMatrix>> onednn_pack(device::Device& device,
                                                  std::span<const Tensor> parts, DType store,
                                                  bool invariant) {
  BATON_TRY(const RowSource source, RowSource::make(parts, store));
  try {
    std::string only;
    if (invariant) {
      only = onednn_kernel(store);
      if (!promises_invariance(only))
        return error(Errc::kUnsupported, "oneDNN: no kernel of independent rows");
    }
    auto matrix =
        std::make_unique<OneDnnMatrix>(store, source.rows(), source.cols(), std::move(only));
    BATON_CHECK_OK(matrix->fill(device, source));
    return std::unique_ptr<PackedMatrix>(std::move(matrix));
  } catch (const dnnl::error& e) {
    return error(Errc::kUnsupported, std::string("oneDNN: cannot pack: ") + e.what());
  }
}

}  // namespace baton::ops
