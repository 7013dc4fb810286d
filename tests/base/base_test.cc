#include <gtest/gtest.h>

#include <cmath>
#include <ctime>
#include <limits>
#include <string>

#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "common/base/process_metrics.h"
#include "common/base/result.h"

namespace baton {
namespace {

static_assert(!std::is_convertible_v<RequestId, WorkerId>);
static_assert(!std::is_convertible_v<uint64_t, RequestId>);

result<int> half(int n) {
  if (n % 2 != 0) return error(Errc::kInvalidArgument, "n is odd");
  return n / 2;
}
result<int> quarter(int n) {
  BATON_TRY(const int h, half(n));
  return half(h);
}

TEST(Result, TryPassesValuesAndErrorsOn) {
  ASSERT_TRUE(quarter(8));
  EXPECT_EQ(*quarter(8), 2);
  ASSERT_FALSE(quarter(6));
  EXPECT_EQ(quarter(6).error().to_string(), "invalid_argument: n is odd");
  EXPECT_THROW((void)quarter(7).value(), std::runtime_error);
}

TEST(Log, KnowsFourLevels) {
  for (const char* level : {"debug", "info", "warn", "error"}) {
    EXPECT_TRUE(check_log_level(level)) << level;
  }
  for (const char* level : {"", "verbose", "off", "INFO", "inf"}) {
    const auto checked = check_log_level(level);
    ASSERT_FALSE(checked) << level;
    EXPECT_NE(checked.error().message.find("--log-level"), std::string::npos);
    EXPECT_NE(checked.error().message.find("debug, info, warn, error"), std::string::npos);
  }
}

TEST(DType, F16RoundsToNearestEvenAndEndsAtItsLargestNumber) {
  EXPECT_EQ(f32_to_f16(1.0f), 0x3c00);
  EXPECT_EQ(f32_to_f16(1.0f + 1.0f / 2048), 0x3c00);   // tie to even
  EXPECT_EQ(f32_to_f16(1.0f + 3.0f / 2048), 0x3c02);   // tie to even, upwards
  EXPECT_EQ(f32_to_f16(1.0f + 1.01f / 2048), 0x3c01);  // above the tie
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfbff);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7bff);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(f32_to_f16(std::ldexp(1.0f, -24)), 0x0001);  // the smallest
  EXPECT_EQ(f32_to_f16(std::ldexp(1.0f, -25)), 0x0000);  // tie to even
  EXPECT_EQ(f32_to_f16(-std::ldexp(1.5f, -25)), 0x8001);
  EXPECT_EQ(f32_to_f16(std::ldexp(2047.5f, -25)), 0x0400);  // up to the smallest normal number
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isfinite(f)) {
      EXPECT_EQ(f32_to_f16(f), h);
    }
  }
}

TEST(DType, Bf16RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.0f + 1.0f / 256), 0x3f80);   // tie to even
  EXPECT_EQ(f32_to_bf16(1.0f + 3.0f / 256), 0x3f82);   // tie to even, upwards
  EXPECT_EQ(f32_to_bf16(1.0f + 1.01f / 256), 0x3f81);  // above the tie
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::max()))));
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = bf16_to_f32(static_cast<uint16_t>(h));
    if (!std::isnan(f)) {
      EXPECT_EQ(f32_to_bf16(f), h);
    }
  }
}

TEST(DType, F16IsExact) {
  EXPECT_EQ(f16_to_f32(0x3c00), 1.0f);
  EXPECT_EQ(f16_to_f32(0xc000), -2.0f);
  EXPECT_EQ(f16_to_f32(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(f16_to_f32(0x03ff), std::ldexp(1023.0f, -24));
  EXPECT_EQ(f16_to_f32(0x7bff), 65504.0f);
  EXPECT_TRUE(std::isinf(f16_to_f32(0x7c00)));
  EXPECT_TRUE(std::isnan(f16_to_f32(0x7e00)));
}

TEST(Metrics, SerializesWithFixedLabels) {
  Metrics metrics(Metrics::Labels{{"model_name", "m"}});
  metrics.counter("baton_things_total", "Things.", {{"kind", "a"}}).Increment(3);
  metrics.histogram("baton_wait_seconds", "Wait.", {0.1, 1.0}).Observe(0.5);
  const std::string text = metrics.serialize();
  EXPECT_NE(text.find("baton_things_total{kind=\"a\",model_name=\"m\"} 3"), std::string::npos)
      << text;
  EXPECT_NE(text.find("baton_wait_seconds_bucket{model_name=\"m\",le=\"1\"} 1"), std::string::npos)
      << text;
}

TEST(ProcessMetrics, TellOfThisProcess) {
  Metrics metrics;
  ProcessMetrics process(metrics);
  process.update();
  const auto value = [&](const std::string& name) {
    const std::string text = metrics.serialize();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + name.size() + 2));
  };
  const double started = value("process_start_time_seconds");
  EXPECT_NEAR(started, static_cast<double>(std::time(nullptr)), 60);
  EXPECT_GT(value("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(value("process_open_fds"), 2);
  EXPECT_LT(value("process_open_fds"), value("process_max_fds"));
  const double before = value("process_cpu_seconds_total");
  EXPECT_GE(before, 0);
  process.update();
  EXPECT_GE(value("process_cpu_seconds_total"), before);
  EXPECT_EQ(value("process_start_time_seconds"), started);
}

}  // namespace
}  // namespace baton
