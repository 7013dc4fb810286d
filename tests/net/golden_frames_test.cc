// Frames as this protocol and the one before write them, byte for byte: who was built of an older
// tree reads and writes these.
#include <fmt/format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "common/net/frame.h"
#include "common/net/protocol.h"
#include "tests/net/golden_file.h"

namespace baton::net {
namespace {

using baton::testing::Golden;
using google::protobuf::util::MessageDifferencer;

std::string path_of(uint32_t protocol) {
  return fmt::format("tests/net/frames/worker_{}.txt", protocol);
}

class GoldenFramesTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(GoldenFramesTest, AreReadAsTheirText) {
  const auto goldens = testing::read_goldens(path_of(GetParam()));
  ASSERT_GE(goldens.size(), 25u);
  for (const Golden& golden : goldens) {
    const auto bytes = std::as_bytes(std::span(golden.bytes));
    ASSERT_GT(bytes.size(), kFrameHeaderBytes) << golden.name;
    const auto length = parse_frame_header(bytes.first<kFrameHeaderBytes>());
    ASSERT_TRUE(length) << golden.name;
    EXPECT_EQ(*length, bytes.size() - kFrameHeaderBytes) << golden.name;
    const auto frame = parse_frame_body(bytes.subspan(kFrameHeaderBytes));
    ASSERT_TRUE(frame) << golden.name;
    const auto expected = testing::parse_text<proto::Frame>(golden);
    EXPECT_TRUE(MessageDifferencer::Equals(*frame, expected))
        << golden.name << " is read as " << frame->ShortDebugString();
  }
}

TEST_P(GoldenFramesTest, AreWrittenByteForByte) {
  for (const Golden& golden : testing::read_goldens(path_of(GetParam()))) {
    std::string out;
    ASSERT_TRUE(append_frame(testing::parse_text<proto::Frame>(golden), out)) << golden.name;
    EXPECT_EQ(out, golden.bytes) << golden.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Protocols, GoldenFramesTest,
                         ::testing::Values(kProtocolMax - 1, kProtocolMax));

// A new body or field is added to the newest file, which is then made anew.
TEST(GoldenFrames, HaveEveryFieldThatThereIs) {
  std::set<std::string> set, all;
  for (const Golden& golden : testing::read_goldens(path_of(kProtocolMax))) {
    testing::note_fields(testing::parse_text<proto::Frame>(golden), set);
  }
  testing::all_fields(*proto::Frame::descriptor(), all);
  for (const std::string& field : all) {
    EXPECT_TRUE(set.contains(field)) << field << " is in no frame of " << path_of(kProtocolMax)
                                     << ": add it there, and run scripts/make_golden_frames.py";
  }
}

TEST(Protocols, MeetWhereTheyHaveAVersionInCommon) {
  EXPECT_TRUE(protocols_meet(1, kProtocolMax - 1));
  EXPECT_TRUE(protocols_meet(kProtocolMax, kProtocolMax + 3));
  EXPECT_FALSE(protocols_meet(kProtocolMax + 1, kProtocolMax + 3));
  EXPECT_FALSE(protocols_meet(0, kProtocolMin - 1));
  EXPECT_FALSE(protocols_meet(3, 2));
}

}  // namespace
}  // namespace baton::net
