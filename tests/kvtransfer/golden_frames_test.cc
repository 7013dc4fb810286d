// What two workers say to each other about KV, as this protocol and the one before write it, byte
// for byte.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "common/proto/handoff.pb.h"
#include "kvtransfer/codec.h"
#include "tests/net/golden_file.h"

namespace baton::kvtransfer {
namespace {

using baton::testing::Golden;

std::string path_of(uint32_t protocol) {
  return fmt::format("tests/kvtransfer/frames/handoff_{}.txt", protocol);
}
bool is_hello(const Golden& golden) { return golden.name.starts_with("hello"); }

class GoldenHandoffsTest : public ::testing::TestWithParam<uint32_t> {};

// What is read is written again as the same bytes: nothing of it is lost or changed between.
TEST_P(GoldenHandoffsTest, AreReadAndWrittenByteForByte) {
  const auto goldens = testing::read_goldens(path_of(GetParam()));
  ASSERT_GE(goldens.size(), 9u);
  for (const Golden& golden : goldens) {
    if (is_hello(golden)) {
      const auto hello = decode_hello(golden.bytes);
      ASSERT_TRUE(hello) << golden.name << ": " << hello.error().message;
      EXPECT_EQ(hello->protocol_max, GetParam());
      EXPECT_EQ(encode(*hello), golden.bytes) << golden.name;
    } else {
      const auto message = decode_message(std::as_bytes(std::span(golden.bytes)));
      ASSERT_TRUE(message) << golden.name << ": " << message.error().message;
      EXPECT_EQ(encode(*message), golden.bytes) << golden.name;
    }
  }
}

TEST_P(GoldenHandoffsTest, BytesAreThoseOfTheirText) {
  for (const Golden& golden : testing::read_goldens(path_of(GetParam()))) {
    const std::string bytes = is_hello(golden)
                                  ? testing::parse_text<proto::Hello>(golden).SerializeAsString()
                                  : testing::parse_text<proto::Handoff>(golden).SerializeAsString();
    EXPECT_EQ(bytes, golden.bytes) << golden.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Protocols, GoldenHandoffsTest,
                         ::testing::Values(kProtocolMax - 1, kProtocolMax));

TEST(GoldenHandoffs, HaveEveryFieldThatThereIs) {
  std::set<std::string> set, all;
  for (const Golden& golden : testing::read_goldens(path_of(kProtocolMax))) {
    if (is_hello(golden)) {
      testing::note_fields(testing::parse_text<proto::Hello>(golden), set);
    } else {
      testing::note_fields(testing::parse_text<proto::Handoff>(golden), set);
    }
  }
  testing::all_fields(*proto::Hello::descriptor(), all);
  testing::all_fields(*proto::Handoff::descriptor(), all);
  // Of a rank group, and of caches that are not offered yet.
  for (const char* other : {"shard_heads", "head_begin", "kind", "layer_begin"}) {
    std::erase_if(all, [&](const std::string& field) {
      return field.ends_with(std::string("Info.") + other);
    });
  }
  for (const std::string& field : all) {
    EXPECT_TRUE(set.contains(field)) << field << " is in no message of " << path_of(kProtocolMax)
                                     << ": add it there, and run scripts/make_golden_frames.py";
  }
}

}  // namespace
}  // namespace baton::kvtransfer
