#include "common/ops/cpu/product_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/ops/cpu/onednn.h"
#include "tests/ops/ops_testing.h"

namespace baton::ops {
namespace {

using testing::HasSubstr;

// One chain of FMAs an output, with something wrong at the end.
template <class Wrong>
MakeProduct chain(Wrong wrong) {
  return [wrong](const Tensor& w, unsigned threads) -> result<Product> {
    std::vector<float> weights;
    for (int64_t i = 0; i < w.rows * w.cols; ++i) {
      weights.push_back(bf16_to_f32(w.as<uint16_t>()[i]));
    }
    return [=, n = w.rows, k = w.cols](const Tensor& x, const Tensor& out) {
      std::vector<float> sums(static_cast<size_t>(n));
      for (int64_t r = 0; r < x.rows; ++r) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t c = 0; c < n; ++c) {
          // Four chains, so that this test is no slower than it must be.
          float part[4] = {};
          for (int64_t i = 0; i < k; ++i) {
            part[i % 4] = part[i % 4] + x.row<float>(r)[i] * weights[c * k + i];
          }
          sums[c] = part[0] + part[1] + part[2] + part[3];
        }
        for (int64_t c = 0; c < n; ++c) {
          float sum = sums[c];
          wrong(sum, c, r, x.rows, threads);
          out.row<float>(r)[c] = sum;
        }
      }
    };
  };
}

float next(float f) { return std::nextafter(f, std::numeric_limits<float>::infinity()); }

TEST(ProductCheck, AcceptsAnyOrderThatIsAlwaysTheSame) {
  const status ok = check_products(chain([](float&, int64_t, int64_t, int64_t, unsigned) {}));
  EXPECT_TRUE(ok) << ok.error().message;
}

TEST(ProductCheck, FindsOneBitThatDependsOnTheNumberOfRows) {
  for (const int64_t rows : {1, 2, 3, 7, 16, 33}) {
    const status bad =
        check_products(chain([rows](float& sum, int64_t c, int64_t r, int64_t m, unsigned) {
          if (m == rows && c == 135 && r == 0) sum = next(sum);
        }));
    ASSERT_FALSE(bad) << rows;
    EXPECT_THAT(bad.error().message, HasSubstr(std::to_string(rows) + " at a time"));
  }
}

TEST(ProductCheck, FindsOneBitThatDependsOnTheLayout) {
  const status bad = check_products(chain([](float& sum, int64_t c, int64_t, int64_t, unsigned t) {
    if (t > 1 && c == 0) sum = next(sum);
  }));
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr("for 3 threads"));
}

TEST(ProductCheck, FindsAWrongSum) {
  const status bad = check_products(chain([](float& sum, int64_t c, int64_t, int64_t, unsigned) {
    if (c == 100) sum += 0.1f;
  }));
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr("off by"));
}

TEST(ProductCheck, PassesErrorsOn) {
  const status bad = check_products([](const Tensor&, unsigned) -> result<Product> {
    return error(Errc::kResourceExhausted, "no memory");
  });
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::kResourceExhausted);
}

}  // namespace
}  // namespace baton::ops
