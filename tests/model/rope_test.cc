#include "common/model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace baton::model {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;

formats::ModelConfig config(uint32_t head_dim, float theta) {
  formats::ModelConfig c;
  c.head_dim = head_dim;
  c.rope_theta = theta;
  return c;
}

// Within two units in the last place.
auto about(float v) { return FloatNear(v, v * 2.4e-7f); }

TEST(Rope, Default) {
  EXPECT_THAT(
      rope_frequencies(config(16, 10000), {}).value(),
      ElementsAre(about(1), about(0.316227764f), about(0.1f), about(0.0316227786f), about(0.01f),
                  about(0.00316227786f), about(0.001f), about(0.000316227786f)));
}

TEST(Rope, Linear) {
  formats::ModelConfig c = config(16, 10000);
  c.rope_scaling = formats::RopeScaling::kLinear;
  c.rope_factor = 4;
  const auto f = rope_frequencies(c, {}).value();
  EXPECT_THAT(f[0], about(0.25f));
  EXPECT_THAT(f[3], about(0.00790569466f));
}

// Llama 3.1 8B: values of transformers 5.23.
TEST(Rope, Llama3KeepsShortWavesStretchesLongOnesAndBlends) {
  formats::ModelConfig c = config(128, 500000);
  c.rope_scaling = formats::RopeScaling::kLlama3;
  c.rope_factor = 8;
  c.rope_low_freq_factor = 1;
  c.rope_high_freq_factor = 4;
  c.rope_original_max_position = 8192;
  const auto f = rope_frequencies(c, {}).value();
  ASSERT_EQ(f.size(), 64u);
  EXPECT_THAT(f[0], about(1));
  EXPECT_THAT(f[10], about(0.128687382f));
  EXPECT_THAT(f[28], about(0.00321144611f));
  EXPECT_THAT(f[30], FloatNear(0.00137189368f, 1e-9f));
  EXPECT_THAT(f[33], FloatNear(0.00031269365f, 1e-9f));
  EXPECT_THAT(f[35], FloatNear(9.55621217e-05f, 1e-10f));
  EXPECT_THAT(f[36], about(7.78465546e-05f));
  EXPECT_THAT(f[63], about(3.06892588e-07f));
}

TEST(Rope, FactorsDivide) {
  const std::vector<float> factors{1, 2, 4, 8};
  const auto f = rope_frequencies(config(8, 10000), factors).value();
  EXPECT_THAT(f, ElementsAre(about(1), about(0.05f), about(0.0025f), about(0.000125f)));
}

TEST(Rope, RefusesFactorsThatAreNotPositiveNumbers) {
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    const std::vector<float> factors{1, 1, bad, 1};
    const auto f = rope_frequencies(config(8, 10000), factors);
    ASSERT_FALSE(f);
    EXPECT_EQ(f.error().code, Errc::kDataCorrupt);
    EXPECT_THAT(f.error().message, HasSubstr("factor 2"));
  }
}

TEST(Rope, TextsAreEqualWhereFrequenciesAre) {
  const auto a = rope_frequencies(config(16, 10000), {}).value();
  auto b = a;
  EXPECT_EQ(rope_text(a), rope_text(b));
  b[7] *= 1.0001f;
  EXPECT_NE(rope_text(a), rope_text(b));
}

}  // namespace
}  // namespace baton::model
