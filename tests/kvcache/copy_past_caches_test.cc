#include "common/kvcache/copy_past_caches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace baton::kvcache {
namespace {

// Of any length, from and to any place, and not a byte more.
TEST(CopyPastCaches, CopiesEveryByteAndNoOther) {
  std::vector<std::byte> from(40000), to(40000);
  std::mt19937 random(1);
  for (std::byte& b : from) b = static_cast<std::byte>(random());
  for (int round = 0; round < 500; ++round) {
    const size_t bytes = random() % (round % 2 == 0 ? 600 : 30000);
    const size_t source = random() % 4000;
    const size_t sink = round % 3 == 0 ? random() % 4000 : random() % 60 * 64;
    std::ranges::fill(to, std::byte{0x5a});
    copy_past_caches(from.data() + source, to.data() + sink, bytes);
    ASSERT_TRUE(std::equal(to.begin() + sink, to.begin() + sink + bytes, from.begin() + source));
    ASSERT_TRUE(std::all_of(to.begin(), to.begin() + sink,
                            [](std::byte b) { return b == std::byte{0x5a}; }));
    ASSERT_TRUE(std::all_of(to.begin() + sink + bytes, to.end(),
                            [](std::byte b) { return b == std::byte{0x5a}; }));
  }
}

}  // namespace
}  // namespace baton::kvcache
