#pragma once

#include <vector>

#include "common/serving/service_host.h"
#include "kvtransfer/handoff_driver.h"

namespace baton::fakes {

// Keeps what a service says to routers, and counts what it asks for.
struct FakeServiceHost final : serving::ServiceHost {
  void send(RouterId, const proto::Frame& frame) override { frames.push_back(frame); }
  uint32_t protocol(RouterId) const override { return router_protocol; }
  void work_added() override { ++works_added; }
  void handoff_touched() override {}

  std::vector<proto::Frame> frames;
  int works_added = 0;
  uint32_t router_protocol = 1;
};

// Hears of hand-offs and does nothing; tests override what they care for.
struct DeafListener : kvtransfer::HandoffListener {
  void joined(const kvtransfer::Joined&, TimePoint) override {}
  void sink_failed(const kvtransfer::HandoffKey&, const Error&) override {}
  void sink_released(const kvtransfer::HandoffKey&, std::span<const BlockId>) override {}
  void source_released(const kvtransfer::SourceReleased&) override {}
  void source_failed(const kvtransfer::SourceFailed&) override {}
  void source_refused(const kvtransfer::HandoffKey&, Duration) override {}
  void source_sink_lost(const kvtransfer::HandoffKey&, const Error&, TimePoint) override {}
  void peer_up(WorkerId, std::string_view) override {}
  void peer_lost(WorkerId, const Error&) override {}
};

}  // namespace baton::fakes
