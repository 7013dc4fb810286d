#include "common/net/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "common/proto/library_log.h"

namespace baton::net {
namespace {

std::span<const std::byte> bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

TEST(Frame, RoundTrip) {
  proto::Frame frame;
  auto* spec = frame.mutable_submit()->mutable_spec();
  spec->set_request(7);
  for (int i = 0; i < 1000; ++i) spec->add_tokens(i * 31);
  std::string wire;
  ASSERT_TRUE(append_frame(frame, wire));
  const auto length = parse_frame_header(bytes(wire).first<kFrameHeaderBytes>());
  ASSERT_TRUE(length);
  ASSERT_EQ(*length + kFrameHeaderBytes, wire.size());
  const auto back = parse_frame_body(bytes(wire).subspan(kFrameHeaderBytes));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->SerializeAsString(), frame.SerializeAsString());
}

TEST(Frame, RefusesLengthOverTheCap) {
  const uint32_t too_long = kMaxFrameBytes + 1;
  std::array<std::byte, kFrameHeaderBytes> header;
  std::memcpy(header.data(), &too_long, 4);
  const auto r = parse_frame_header(header);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Errc::kDataCorrupt);
}

TEST(Frame, RefusesToSendOverTheCap) {
  proto::Frame frame;
  frame.mutable_pair_request()->set_hello(std::string(kMaxFrameBytes + 1, 'x'));
  std::string wire;
  EXPECT_FALSE(append_frame(frame, wire));
  EXPECT_TRUE(wire.empty());
}

TEST(Frame, RefusesEmptyAndUnknownBodies) {
  EXPECT_FALSE(parse_frame_body({}));
  const std::string unknown = "\xfa\x3f\x00";  // field 1023: an empty message of a later version
  EXPECT_FALSE(parse_frame_body(bytes(unknown)));
}

// Text that is no UTF-8 is refused, and nothing of it is printed: standard error is the log.
TEST(Frame, NothingIsPrintedOfWhatCannotBeParsed) {
  const std::string text = "secret\xff", error = "\x12\x07" + text;
  const std::string reply = "\x82\x01\x09" + error;  // Frame.pair_reply.error
  const auto printed = [&] {
    testing::internal::CaptureStderr();
    EXPECT_FALSE(parse_frame_body(bytes(reply)));
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(printed(), "") << "the library has become silent by itself";
  proto::silence_library();
  EXPECT_EQ(printed(), "");
}

TEST(Frame, RandomBytesNeverCrash) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string noise(random() % 64, '\0');
    for (char& c : noise) c = static_cast<char>(random());
    (void)parse_frame_body(bytes(noise));
  }
}

}  // namespace
}  // namespace baton::net
