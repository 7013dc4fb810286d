#pragma once

#include <cstdint>
#include <thread>

#include "common/device/cuda/cuda_device.h"
#include "common/ops/cuda/cuda_ops.h"
#include "tests/ops/ops_testing.h"

// What the tests of the CUDA operations share. Every result is compared with the CPU's (in f32, on
// the same inputs rounded to halves) or with sums in double.
namespace baton::ops {

// The first GPU, or why there is none to test on.
struct FirstGpu {
  std::unique_ptr<device::Device> device;
  std::string why_not;
};
inline const FirstGpu& first_gpu() {
  // Made once, since that takes a second; never destroyed, since CUDA ends before statics do.
  static const FirstGpu* const gpu = [] {
    auto* made = new FirstGpu;
    auto device = device::make_cuda_device(0);
    if (device) {
      made->device = std::move(*device);
    } else {
      made->why_not = "not tested, " + device.error().message;
    }
    return made;
  }();
  return *gpu;
}

// A test on the GPU with a stream and both tables; skipped where there is no GPU.
class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (first_gpu().device == nullptr) GTEST_SKIP() << first_gpu().why_not;
    device_ = first_gpu().device.get();
    stream_ = device_->make_stream();
    fast_ = cuda_ops({.half = half_type()}).value();
    deterministic_ = cuda_ops({.half = half_type(), .deterministic = true}).value();
    static const Ops cpu = cpu_ops();  // checks itself for a while
    cpu_ops_ = cpu;
  }
  void TearDown() override {
    if (stream_ != nullptr) stream_->synchronize();
  }

 public:
  // Device memory with these bytes in it.
  template <class T>
  device::Buffer upload(std::span<const T> from) {
    device::Buffer buffer = device_->allocate(std::max<size_t>(from.size_bytes(), 16)).value();
    device_->copy(*stream_, buffer.data(), from.data(), from.size_bytes());
    stream_->synchronize();
    return buffer;
  }
  template <class T>
  std::vector<T> download(const void* from, size_t count) {
    std::vector<T> to(count);
    device_->copy(*stream_, to.data(), from, count * sizeof(T));
    stream_->synchronize();
    return to;
  }

 protected:
  device::Device* device_ = nullptr;
  std::unique_ptr<Stream> stream_;
  Ops fast_, deterministic_, cpu_ops_;
  Cpu cpu_{std::max(1u, std::thread::hardware_concurrency())};

  // A matrix in the device's memory. What nobody has written is NaN: the elements to begin with,
  // what lies between a row's end and the next row, and what lies behind the last.
  template <class T>
  class DeviceMatrix {
   public:
    DeviceMatrix(OnGpu& gpu, int64_t rows, int64_t cols, int64_t row_stride = 0)
        : gpu_(&gpu), rows_(rows), cols_(cols), stride_(row_stride == 0 ? cols : row_stride) {
      const std::vector<T> poison(size(), poisoned());
      memory_ = gpu.upload(std::span<const T>(poison));
    }
    DeviceMatrix(OnGpu& gpu, const Matrix<T>& from, int64_t row_stride = 0)
        : DeviceMatrix(gpu, from.rows, from.cols, row_stride) {
      set(from);
    }
    void set(const Matrix<T>& from) const {
      std::vector<T> all(size(), poisoned());
      for (int64_t r = 0; r < rows_; ++r) {
        std::copy_n(from.data.data() + r * cols_, cols_, all.data() + r * stride_);
      }
      gpu_->device_->copy(*gpu_->stream_, memory_.data(), all.data(), all.size() * sizeof(T));
      gpu_->stream_->synchronize();
    }
    Tensor tensor() const {
      return Tensor::matrix(memory_.data(), Matrix<T>::dtype(), rows_, cols_, stride_);
    }
    T* data() const { return reinterpret_cast<T*>(memory_.data()); }

    // What the stream leaves there. Nothing outside may have been written.
    Matrix<T> get() const {
      const std::vector<T> all = gpu_->download<T>(memory_.data(), size());
      Matrix<T> m(rows_, cols_);
      int64_t written = 0;
      for (int64_t r = 0; r < rows_; ++r) {
        std::copy_n(all.data() + r * stride_, cols_, m.row(r));
        for (int64_t c = cols_; c < stride_; ++c) written += !is_poison(all[r * stride_ + c]);
      }
      for (size_t i = rows_ * stride_; i < all.size(); ++i) written += !is_poison(all[i]);
      EXPECT_EQ(written, 0) << "elements between or behind the rows were written";
      return m;
    }

   private:
    static constexpr size_t kBehind = 256;  // elements that nobody may touch
    static T poisoned() {
      T value;
      std::memset(&value, 0xff, sizeof(T));
      return value;
    }
    static bool is_poison(T value) {
      const T poison = poisoned();
      return std::memcmp(&value, &poison, sizeof(T)) == 0;
    }
    size_t size() const { return static_cast<size_t>(rows_ * stride_) + kBehind; }

    OnGpu* gpu_;
    int64_t rows_, cols_, stride_;
    device::Buffer memory_;
  };
  using DeviceF = DeviceMatrix<float>;
  using DeviceH = DeviceMatrix<uint16_t>;

  // Values in page-locked memory, which host and device read at the same address.
  template <class T>
  class Shared {
   public:
    Shared(OnGpu& gpu, std::span<const T> from)
        : memory_(gpu.device_->allocate_host(std::max<size_t>(from.size_bytes(), 16)).value()),
          count_(from.size()) {
      std::copy(from.begin(), from.end(), get().begin());
    }
    Shared(OnGpu& gpu, const std::vector<T>& from) : Shared(gpu, std::span<const T>(from)) {}
    std::span<T> get() const { return {reinterpret_cast<T*>(memory_.data()), count_}; }

   private:
    device::Buffer memory_;
    size_t count_;
  };
};

// How far a row may be from the reference, as ||difference|| / ||reference||. Rounding to bf16
// alone makes 1.6e-3 of it, twice over 2.3e-3, to f16 an eighth; sums on tensor cores in f32 some
// 1e-5.
inline const double kHalfBound = half_type() == DType::kF16 ? 1e-3 : 5e-3;
inline constexpr double kF32Bound = 1e-4;
inline const double kAttentionBound = 2 * kHalfBound;  // probabilities are rounded, too

// Every row within the bound, and no element off by much more than the others.
inline void expect_near(const MatrixF& out, const MatrixF& expected, double bound,
                        const std::string& what) {
  ASSERT_EQ(out.data.size(), expected.data.size()) << what;
  const auto squares = [](const float* v, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += static_cast<double>(v[i]) * v[i];
    return sum;
  };
  const auto cols = static_cast<size_t>(expected.cols);
  const double all = squares(expected.data.data(), expected.data.size());
  for (int64_t r = 0; r < expected.rows; ++r) {
    const float *got = out.data.data() + r * cols, *want = expected.data.data() + r * cols;
    double mean = squares(want, cols) / static_cast<double>(cols), difference = 0;
    // A few elements may all be small by chance, where what was summed was not.
    if (cols < 16) mean = std::max(mean, all / static_cast<double>(expected.data.size()));
    const double rms = std::sqrt(mean);
    for (size_t c = 0; c < cols; ++c) {
      const double limit = bound * (2 * std::abs(want[c]) + 6 * rms);
      const double d = std::abs(static_cast<double>(got[c]) - want[c]);
      ASSERT_TRUE(d <= limit) << what << ": row " << r << " column " << c << ": " << got[c]
                              << " is not " << want[c] << " (within " << limit << ")";
      difference += d * d;
    }
    ASSERT_LE(std::sqrt(difference), bound * rms * std::sqrt(static_cast<double>(cols)) + 1e-30)
        << what << ": row " << r << " is off by "
        << std::sqrt(difference / static_cast<double>(cols)) / rms << " of itself";
  }
}
inline void expect_near(const MatrixH& out, const MatrixF& expected, double bound,
                        const std::string& what) {
  expect_near(to_f32(out), expected, bound, what);
}

inline void expect_same_bits(const MatrixH& a, const MatrixH& b, const std::string& what) {
  ASSERT_EQ(a.data.size(), b.data.size()) << what;
  for (size_t i = 0; i < a.data.size(); ++i) {
    ASSERT_EQ(a.data[i], b.data[i])
        << what << ": row " << i / a.cols << " column " << i % a.cols << ": "
        << half_to_f32(a.data[i]) << " and " << half_to_f32(b.data[i]);
  }
}
inline void expect_same_bits(const MatrixF& a, const MatrixF& b, const std::string& what) {
  ASSERT_EQ(a.data.size(), b.data.size()) << what;
  expect_same_bits(a.data.data(), b.data.data(), a.data.size(), what);
}

// Values of about a normal distribution, fast enough for the weights of a whole matrix.
inline MatrixH fast_random(uint64_t seed, int64_t rows, int64_t cols, float scale = 1.0f) {
  MatrixH m(rows, cols);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (uint16_t& value : m.data) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    const uint64_t bits = state * 0x2545f4914f6cdd1du;
    const auto sum = static_cast<float>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                        (bits >> 32 & 0xffff) + (bits >> 48));
    value = f32_to_half((sum - 131070.0f) * (scale / 37837.0f));  // 65536 * sqrt(4 / 12)
  }
  return m;
}

// Rows [begin, begin + count).
template <class T>
Matrix<T> rows_of(const Matrix<T>& from, int64_t begin, int64_t count) {
  Matrix<T> m(count, from.cols);
  std::copy_n(from.data.data() + begin * from.cols, count * from.cols, m.data.data());
  return m;
}

}  // namespace baton::ops
