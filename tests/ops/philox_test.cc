#include "common/ops/philox.h"

#include <gtest/gtest.h>

namespace baton::ops {
namespace {

// The known answers of the Random123 distribution (tests/kat_vectors, "philox4x32 10").
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32_10({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheKeyCounts) {
  const uint64_t base = draw_bits(1, 0, 0, 0);
  EXPECT_NE(base, draw_bits(2, 0, 0, 0));
  EXPECT_NE(base, draw_bits(1 | (uint64_t{1} << 40), 0, 0, 0));
  EXPECT_NE(base, draw_bits(1, 1, 0, 0));
  EXPECT_NE(base, draw_bits(1, 0, 1, 0));
  EXPECT_NE(base, draw_bits(1, 0, 0, 1));
  EXPECT_EQ(base, draw_bits(1, 0, 0, 0));
}

}  // namespace
}  // namespace baton::ops
