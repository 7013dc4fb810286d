#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "common/device/cpu/cpu_device.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/ops/cpu/functions.h"

namespace baton::ops {

// What tests take for a half: bf16, or f16 where BATON_TEST_DTYPE says so. Only the CUDA
// operations' tests run with either; the CPU has no f16.
inline DType half_type() {
  static const char* const wanted = std::getenv("BATON_TEST_DTYPE");
  static const bool is_f16 = wanted != nullptr && std::string_view(wanted) == "f16";
  return is_f16 ? DType::kF16 : DType::kBF16;
}
inline uint16_t f32_to_half(float v) {
  return half_type() == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
}
inline float half_to_f32(uint16_t v) {
  return half_type() == DType::kF16 ? f16_to_f32(v) : bf16_to_f32(v);
}

// A matrix that owns its memory. T: float, or uint16_t for halves.
template <class T>
struct Matrix {
  Matrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), data(rows * cols) {}

  static DType dtype() { return sizeof(T) == 4 ? DType::kF32 : half_type(); }

  Tensor tensor() { return Tensor::matrix(data.data(), dtype(), rows, cols); }
  T& at(int64_t r, int64_t c) { return data[r * cols + c]; }
  T* row(int64_t r) { return data.data() + r * cols; }

  int64_t rows, cols;
  std::vector<T> data;
};
using MatrixF = Matrix<float>;
using MatrixH = Matrix<uint16_t>;

using Random = std::mt19937;

inline float uniform(Random& random, float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random);
}
inline int64_t pick(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

inline MatrixF random_matrix(Random& random, int64_t rows, int64_t cols, float scale = 1.0f) {
  MatrixF m(rows, cols);
  std::normal_distribution<float> normal(0.0f, scale);
  for (float& v : m.data) v = normal(random);
  return m;
}

inline MatrixH to_halves(const MatrixF& from) {
  MatrixH m(from.rows, from.cols);
  for (size_t i = 0; i < m.data.size(); ++i) m.data[i] = f32_to_half(from.data[i]);
  return m;
}

inline MatrixF to_f32(const MatrixH& from) {
  MatrixF m(from.rows, from.cols);
  for (size_t i = 0; i < m.data.size(); ++i) m.data[i] = half_to_f32(from.data[i]);
  return m;
}

inline void expect_same_bits(const float* a, const float* b, size_t n, const std::string& what) {
  for (size_t i = 0; i < n; ++i) {
    uint32_t x, y;
    std::memcpy(&x, a + i, 4);
    std::memcpy(&y, b + i, 4);
    ASSERT_EQ(x, y) << what << ": element " << i << ": " << a[i] << " and " << b[i];
  }
}

// A CPU with so many threads and a stream on it.
struct Cpu {
  explicit Cpu(unsigned threads)
      : device(device::make_cpu_device(threads)), stream(device->make_stream()) {}

  std::unique_ptr<device::Device> device;
  std::unique_ptr<Stream> stream;
};

// The CPU's table with the kernels that every machine has.
inline Ops own_ops() {
  Ops ops = cpu_ops();
  ops.pack = cpu_pack;
  ops.attention = cpu_attention;
  ops.attention_partials = cpu_attention_partials;
  ops.bf16_input = DType::kF32;
  ops.numerics = cpu_numerics({});
  return ops;
}

}  // namespace baton::ops
