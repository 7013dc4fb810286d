#include "common/ops/cpu/product_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/dtype.h"

namespace baton::ops {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kSummedRows = 4;
// [n, k]: neither a multiple of what kernels take at once in the second, which is also deep enough
// for them to divide K.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{192, 576}, {136, 4112}};

// bf16 numbers in [-1, 1).
std::vector<uint16_t> random_bf16(int64_t count, uint64_t state) {
  std::vector<uint16_t> out(static_cast<size_t>(count));
  for (uint16_t& v : out) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    v = f32_to_bf16(static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f);
  }
  return out;
}

struct Operands {
  Operands(int64_t n_, int64_t k_)
      : n(n_), k(k_), w(random_bf16(n * k, 1)), x(static_cast<size_t>(kRows * k)) {
    std::ranges::transform(random_bf16(kRows * k, 2), x.begin(), bf16_to_f32);
  }
  Tensor weights() { return Tensor::matrix(w.data(), DType::kBF16, n, k); }
  Tensor rows() { return Tensor::matrix(x.data(), DType::kF32, kRows, k); }
  std::string shape() const { return fmt::format("[{}, {}]", n, k); }

  int64_t n, k;
  std::vector<uint16_t> w;  // [n, k]
  std::vector<float> x;     // [kRows, k]
};

using Outputs = std::vector<float>;  // [kRows, n]

// All rows, so many at a time; the last ones may be computed twice.
Outputs multiply(Operands& o, const Product& product, int64_t batch) {
  Outputs out(static_cast<size_t>(kRows * o.n));
  const Tensor x = o.rows(), y = Tensor::matrix(out.data(), DType::kF32, kRows, o.n);
  for (int64_t row = 0; row < kRows; row += batch) {
    const int64_t begin = std::min(row, kRows - batch);
    product(x.slice_rows(begin, batch), y.slice_rows(begin, batch));
  }
  return out;
}

// Each product of two bf16 is an f32, so only the additions round.
status check_sums(const Operands& o, const Outputs& out) {
  for (int64_t i = 0; i < kSummedRows; ++i) {
    const int64_t r = i * (kRows / kSummedRows);
    for (int64_t c = 0; c < o.n; ++c) {
      double sum = 0, size = 0;
      for (int64_t j = 0; j < o.k; ++j) {
        const double p = static_cast<double>(o.x[r * o.k + j]) * bf16_to_f32(o.w[c * o.k + j]);
        sum += p;
        size += std::abs(p);
      }
      const double off = std::abs(out[r * o.n + c] - sum);
      if (off <= static_cast<double>(o.k) * 0x1p-24 * size) continue;
      return error(Errc::kUnsupported,
                   fmt::format("an output of {} is off by {:.3g}", o.shape(), off));
    }
  }
  return {};
}

}  // namespace

status check_products(const MakeProduct& make) {
  for (const auto& [n, k] : kShapes) {
    Operands operands(n, k);
    Outputs expected;
    for (const unsigned threads : {1u, 3u}) {
      BATON_TRY(const Product product, make(operands.weights(), threads));
      for (const int64_t batch :
           {kRows, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{7}, int64_t{16}, int64_t{33}}) {
        Outputs out = multiply(operands, product, batch);
        if (expected.empty()) {
          BATON_CHECK_OK(check_sums(operands, out));
          expected = std::move(out);
        } else if (std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) != 0) {
          return error(Errc::kUnsupported,
                       fmt::format("rows of {} depend on those beside them, {} at a time in the "
                                   "layout for {} threads",
                                   operands.shape(), batch, threads));
        }
      }
    }
  }
  return {};
}

}  // namespace baton::ops
