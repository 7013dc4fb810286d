#include "common/model/weight_digest.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

namespace baton::model {
namespace {

TEST(WeightDigest, NamesTensorsSlicesAndFiles) {
  const Digest128 a{1, 2}, b{3, 4};
  formats::Fingerprint files, other;
  other.bytes[0] = 1;
  const auto name = [](std::vector<std::pair<std::string, std::vector<Digest128>>> tensors,
                       const formats::Fingerprint& f) {
    WeightDigest digest;
    for (const auto& [tensor, slices] : tensors) digest.add(tensor, slices);
    return digest.finish(f);
  };
  const std::set<std::string> names = {
      name({}, files),
      name({{"x", {a, b}}}, files),
      name({{"x", {b, a}}}, files),
      name({{"x", {a}}}, files),
      name({{"y", {a, b}}}, files),
      name({{"x", {a, b}}}, other),
      name({{"x", {a}}, {"y", {b}}}, files),
      name({{"x", {b}}, {"y", {a}}}, files),
  };
  EXPECT_EQ(names.size(), 8u);
  EXPECT_EQ(name({{"x", {a}}, {"y", {b}}}, files), name({{"y", {b}}, {"x", {a}}}, files));
}

TEST(WeightDigest, SlicesAreWholeRows) {
  EXPECT_EQ(digest_rows(1), 64u << 10);
  EXPECT_EQ(digest_rows(1000), 65u);
  EXPECT_EQ(digest_rows(1u << 20), 1u);
}

TEST(WeightDigest, EveryByteCounts) {
  std::array<std::byte, 100> bytes{};
  const Digest128 before = digest_bytes(bytes);
  bytes[50] = std::byte{1};
  EXPECT_NE(digest_bytes(bytes), before);
}

}  // namespace
}  // namespace baton::model
