// Against brute force over single tokens, and against the lengths that were drawn.
#include "router/placement/length_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace baton::router {
namespace {

using End = LengthModel::End;
constexpr uint32_t kLong = 100000;

struct Seen {
  uint32_t tokens;
  End end;
};

// S(k) = P(length > k) for k = 0 .. most, by the textbook, one token at a time, with the same prior
// and the same forgetting.
std::vector<double> kaplan_meier(const std::vector<Seen>& seen, uint32_t most) {
  std::vector<double> survival(most + 1, 1.0);
  const double prior = LengthModel::kPriorWeight;
  for (uint32_t k = 1; k <= most; ++k) {
    double ended = 0, at_risk = 0, weight = 1;
    for (size_t i = seen.size(); i-- > 0;) {
      weight *= 1 - 1 / LengthModel::kMemory;
      if (seen[i].tokens < k) continue;
      at_risk += weight;
      if (seen[i].tokens == k && seen[i].end == End::kOwn) ended += weight;
    }
    const double hazard = (ended + prior / LengthModel::kPriorMean) / (at_risk + prior);
    survival[k] = survival[k - 1] * (1 - hazard);
  }
  return survival;
}

LengthModel taught(const std::vector<Seen>& seen) {
  LengthModel model(1);
  for (const Seen& one : seen) model.observe(0, one.tokens, one.end);
  return model;
}

std::vector<Seen> draw(uint64_t seed, size_t n, double median, double sigma, uint32_t cap) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> lengths(std::log(median), sigma);
  std::vector<Seen> out;
  for (size_t i = 0; i < n; ++i) {
    const auto length = static_cast<uint32_t>(std::clamp(lengths(random), 1.0, 1e6));
    // Some ask for less than others.
    const uint32_t most = cap == 0 ? kLong : 1 + static_cast<uint32_t>(random() % cap);
    out.push_back(length <= most ? Seen{length, End::kOwn} : Seen{most, End::kCut});
  }
  return out;
}

TEST(LengthModel, BucketsAreOneTokenOrAtMostFivePercentWide) {
  for (size_t b = 0; b < LengthModel::kBuckets; ++b) {
    const uint32_t low = LengthModel::edge(b), high = LengthModel::edge(b + 1);
    EXPECT_GT(high, low);
    EXPECT_TRUE(high == low + 1 || high - low <= 0.05 * low) << low;
  }
  EXPECT_EQ(LengthModel::edge(LengthModel::kBuckets), LengthModel::kMaxTokens);
}

TEST(LengthModel, WithoutAnyItIsThePrior) {
  const LengthModel model(2);
  const double stay = 1 - 1 / LengthModel::kPriorMean;
  for (const uint32_t most : {1u, 16u, 100u, 256u, 1024u, kLong}) {
    const double expected = LengthModel::kPriorMean * (1 - std::pow(stay, most));
    EXPECT_NEAR(model.mean(1, most), expected, 0.01 * expected) << most;
  }
  for (const uint32_t delivered : {0u, 30u, 500u}) {
    EXPECT_NEAR(model.mean_left(0, delivered, kLong), 256, 5) << delivered;
    EXPECT_NEAR(model.survival(0, delivered, 100), std::pow(stay, 100), 0.01) << delivered;
  }
  EXPECT_EQ(model.seen(0), 0);
}

// Up to 40 tokens a bucket is one, and 64 are taken in one by one: equal to the last bits.
TEST(LengthModel, IsKaplanMeierWhereBucketsAreTokens) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const auto seen = draw(seed, 1 + seed, 12, 0.8, seed % 2 == 0 ? 0 : 30);
    const LengthModel model = taught(seen);
    const auto survival = kaplan_meier(seen, 40);
    double mean = 0;
    for (uint32_t k = 0; k <= 40; ++k) {
      EXPECT_NEAR(model.survival(0, 0, k), survival[k], 1e-9) << seed << " " << k;
      EXPECT_NEAR(model.mean(0, k), mean, 1e-8) << seed << " " << k;
      mean += survival[k];
    }
    for (uint32_t d = 0; d < 40; d += 7) {
      for (uint32_t more = 0; d + more <= 40; more += 3) {
        EXPECT_NEAR(model.survival(0, d, more), survival[d + more] / survival[d], 1e-9);
      }
    }
  }
}

TEST(LengthModel, IsNearKaplanMeierBeyond) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const auto seen = draw(seed, 3000, 300, 0.9, seed % 2 == 0 ? 0 : 2000);
    const LengthModel model = taught(seen);
    constexpr uint32_t kMost = 2000;
    const auto survival = kaplan_meier(seen, kMost);
    double mean = 0;
    for (uint32_t k = 0; k < kMost; ++k) {
      ASSERT_NEAR(model.survival(0, 0, k), survival[k], 0.01) << seed << " " << k;
      mean += survival[k];
    }
    EXPECT_NEAR(model.mean(0, kMost), mean, 0.01 * mean) << seed;
  }
}

// mean_left is the sum of survival, wherever it begins and ends.
TEST(LengthModel, MeansAndSurvivalAgree) {
  std::mt19937_64 random(7);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const LengthModel model =
        taught(draw(seed, 1 + seed * 40, 20 + 40 * static_cast<double>(seed), 1, 1000));
    for (int i = 0; i < 50; ++i) {
      const auto delivered = static_cast<uint32_t>(random() % 3000);
      const auto most = delivered + 1 + static_cast<uint32_t>(random() % 2000);
      double sum = 0;
      for (uint32_t k = 0; k < most - delivered; ++k) sum += model.survival(0, delivered, k);
      EXPECT_NEAR(model.mean_left(0, delivered, most), sum, 1e-6 * sum) << delivered << " " << most;
    }
  }
}

TEST(LengthModel, SurvivalFallsAndMeansGrowWithTheCap) {
  const LengthModel model = taught(draw(3, 500, 200, 1.2, 0));
  for (const uint32_t delivered : {0u, 1u, 39u, 40u, 41u, 333u, 9999u, LengthModel::kMaxTokens}) {
    double before = 1.0, mean_before = 0;
    EXPECT_EQ(model.survival(0, delivered, 0), 1.0);
    EXPECT_EQ(model.mean_left(0, delivered, delivered), 0.0);
    for (uint32_t more = 1; more < 3000; more += 13) {
      const double now = model.survival(0, delivered, more);
      EXPECT_LE(now, before + 1e-12);
      EXPECT_GE(now, 0);
      const double mean = model.mean_left(0, delivered, delivered + more);
      EXPECT_GE(mean, mean_before - 1e-9);
      EXPECT_LE(mean, more);
      before = now;
      mean_before = mean;
    }
  }
}

// Half of the answers are cut off early; what is learnt is how long they would have been.
TEST(LengthModel, WhatWasCutOffDoesNotMakeAnswersShort) {
  std::mt19937_64 random(5);
  std::lognormal_distribution<double> lengths(std::log(200), 0.7);
  LengthModel model(1);
  double of_all = 0, as_seen = 0;
  constexpr int kAll = 20000;
  for (int i = 0; i < kAll; ++i) {
    const auto length = static_cast<uint32_t>(lengths(random)) + 1;
    const uint32_t most = random() % 2 == 0 ? 100 : 4096;
    model.observe(0, std::min(length, most), length <= most ? End::kOwn : End::kCut);
    of_all += length;
    as_seen += std::min(length, most);
  }
  EXPECT_NEAR(model.mean(0, kLong), of_all / kAll, 0.05 * of_all / kAll);
  EXPECT_LT(as_seen / kAll, 0.75 * of_all / kAll);  // which a plain mean would have taken it for
}

// Within a bucket, too: whoever was cut off near its end was at risk in nearly all of it.
TEST(LengthModel, WhatWasCutOffWasAtRiskAsFarAsItCame) {
  size_t b = 0;
  while (LengthModel::edge(b) < 1000) ++b;
  const uint32_t low = LengthModel::edge(b), high = LengthModel::edge(b + 1);
  for (const auto& [cut, at_risk] : {std::pair(high - 1, 60.0), {low + 1, 30.0}}) {
    LengthModel model(1);
    for (int i = 0; i < 30; ++i) model.observe(0, cut, End::kCut);
    for (int i = 0; i < 10; ++i) model.observe(0, low + 1 + (high - low) * i / 10, End::kOwn);
    for (int i = 0; i < 20; ++i) model.observe(0, high + 500, End::kOwn);
    EXPECT_NEAR(model.survival(0, low, high - low), 1 - 10 / at_risk, 0.04) << cut;
  }
}

TEST(LengthModel, ForgetsWhatNoLongerHolds) {
  LengthModel model(1);
  for (int i = 0; i < 5000; ++i) model.observe(0, 40, End::kOwn);
  EXPECT_NEAR(model.mean(0, kLong), 40, 2);
  for (int i = 0; i < 10000; ++i) model.observe(0, 800, End::kOwn);
  EXPECT_NEAR(model.mean(0, kLong), 800, 40);
  EXPECT_NEAR(model.seen(0), LengthModel::kMemory, 0.02 * LengthModel::kMemory);
}

TEST(LengthModel, ClassesDoNotTeachEachOther) {
  LengthModel model(2);
  for (int i = 0; i < 1000; ++i) model.observe(0, 10, End::kOwn);
  EXPECT_LT(model.mean(0, kLong), 15);
  EXPECT_NEAR(model.mean(1, kLong), 256, 3);
}

// Where a part has seen nothing its class speaks, also of lengths beyond those that it has seen.
TEST(LengthModel, APartBeginsAsItsClass) {
  LengthModel model(2, 2);  // rows 0 and 3 are classes
  for (int i = 0; i < 1000; ++i) model.observe(3, 40, End::kOwn);
  for (const uint32_t row : {4u, 5u}) model.observe(row, 40, End::kOwn);
  EXPECT_NEAR(model.mean(4, kLong), 40, 2);
  for (int i = 0; i < 100; ++i) model.observe(4, 10, End::kOwn);
  EXPECT_NEAR(model.mean(4, kLong), 11, 2);
  EXPECT_NEAR(model.mean(5, kLong), 40, 2);
  EXPECT_NEAR(model.mean(0, kLong), 256, 3);
}

TEST(LengthModel, TheLongestAndTheShortestAreTaken) {
  LengthModel model(1);
  for (const uint32_t tokens :
       {0u, 1u, LengthModel::kMaxTokens - 1, LengthModel::kMaxTokens, UINT32_MAX}) {
    model.observe(0, tokens, End::kOwn);
    model.observe(0, tokens, End::kCut);
  }
  for (const uint32_t delivered : {0u, 1u << 19, LengthModel::kMaxTokens, UINT32_MAX - 1}) {
    const double left = model.mean_left(0, delivered, UINT32_MAX);
    EXPECT_TRUE(std::isfinite(left) && left > 0) << delivered << " " << left;
    const double survival = model.survival(0, delivered, UINT32_MAX);
    EXPECT_TRUE(survival >= 0 && survival <= 1) << delivered;
  }
}

}  // namespace
}  // namespace baton::router
