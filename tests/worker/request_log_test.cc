#include "worker/request_log.h"

#include <gtest/gtest.h>

namespace baton::worker {
namespace {

TEST(RequestLogTest, APromptAndAReservationAreNamedByTheClientsId) {
  proto::Frame frame;
  proto::RequestSpec& spec = *frame.mutable_submit()->mutable_spec();
  spec.set_request(17);
  spec.set_generation(2);
  spec.set_trace("client-7.a_B");
  spec.add_tokens(5), spec.add_tokens(6);
  EXPECT_EQ(arrival_text(frame), "request 17: id=client-7.a_B generation=2 a prompt of 2 tokens");
  const proto::RequestSpec copy = spec;
  *frame.mutable_reserve()->mutable_spec() = copy;
  EXPECT_EQ(arrival_text(frame),
            "request 17: id=client-7.a_B generation=2 a reservation of 2 tokens");
}

TEST(RequestLogTest, NothingThatCouldForgeALineIsWritten) {
  proto::Frame frame;
  proto::RequestSpec& spec = *frame.mutable_submit()->mutable_spec();
  for (const std::string& id : {std::string("a\nb"), std::string("a b"), std::string(),
                                std::string(65, 'x'), std::string("\x1b[2J")}) {
    spec.set_trace(id);
    EXPECT_EQ(arrival_text(frame), "request 0: id=- generation=0 a prompt of 0 tokens");
  }
}

TEST(RequestLogTest, OtherFramesBringNone) {
  proto::Frame frame;
  EXPECT_EQ(arrival_text(frame), "");
  frame.mutable_cancel()->set_request(3);
  EXPECT_EQ(arrival_text(frame), "");
}

}  // namespace
}  // namespace baton::worker
