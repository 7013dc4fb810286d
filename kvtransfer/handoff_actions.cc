#include <utility>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/handoff_driver_impl.h"

// The driver does what its state machines ask for.
namespace baton::kvtransfer {
namespace {

constexpr size_t kMaxUnsent = 4096;  // messages kept for a peer that has not answered yet

}  // namespace

void Driver::run(TimePoint now) {
  if (std::exchange(running_, true)) return;
  while (!source_actions_.empty() || !sink_actions_.empty()) {
    SourceActions source_actions = std::exchange(source_actions_, {});
    SinkActions sink_actions = std::exchange(sink_actions_, {});
    for (SourceAction& action : source_actions) {
      std::visit([&](auto& a) { execute(a, now); }, action);
    }
    for (SinkAction& action : sink_actions) {
      std::visit([&](auto& a) { execute(a, now); }, action);
    }
  }
  running_ = false;
  metrics_.update(source_, sink_, transport_->dropped_messages());
}

void Driver::execute(SendMessage& action, TimePoint now) {
  Peer* peer = peers_.find(action.to);
  if (peer == nullptr) return;  // lost meanwhile, which the machines know
  metrics_.message_sent(action.message);
  std::string payload = encode(action.message);
  if (peer->up) {
    send_now(action.to, payload, now);
  } else if (peer->unsent.size() < kMaxUnsent) {
    peer->unsent.push_back(std::move(payload));
  } else {
    lose(action.to, error(Errc::kResourceExhausted, "it does not answer"), now);
  }
}

void Driver::send_now(WorkerId to, const std::string& payload, TimePoint now) {
  Peer* peer = peers_.find(to);
  if (peer == nullptr) return;
  peer->last_sent = now;
  const status sent = transport_->notify(peer->connection, std::as_bytes(std::span(payload)));
  if (!sent) lose(to, sent.error(), now);
}

void Driver::execute(SourceReleased& action, TimePoint) {
  metrics_.ended("source", "released");
  listener_.source_released(action);
}

void Driver::execute(SourceFailed& action, TimePoint) {
  metrics_.ended("source", baton::name(action.error.code));
  if (action.error.code != Errc::kCancelled) {
    LOG_WARN("hand-off {} failed here at its source: {}", to_string(action.key),
             action.error.message);
  }
  listener_.source_failed(action);
}

void Driver::execute(SinkRefused& action, TimePoint) {
  listener_.source_refused(action.key, action.retry_after);
}

void Driver::execute(SinkLost& action, TimePoint now) {
  LOG_INFO("hand-off {} lost its sink: {}", to_string(action.key), action.error.message);
  listener_.source_sink_lost(action.key, action.error, now);
}

void Driver::execute(StartRead& action, TimePoint now) {
  const uint32_t begin = action.range.token_begin;
  uint64_t bytes = 0;
  for (const Segment& s : action.segments) bytes += s.total_bytes();
  link_.wanted(action.cookie, bytes, now);
  pending_reads_.push_back({std::move(action), begin, 0});
}

void Driver::execute(Joined& action, TimePoint now) {
  metrics_.joined(action.timings);
  listener_.joined(action, now);
}

void Driver::execute(SinkFailed& action, TimePoint) {
  metrics_.ended("sink", baton::name(action.error.code));
  if (action.error.code != Errc::kCancelled) {
    LOG_WARN("hand-off {} failed here at its sink: {}", to_string(action.key),
             action.error.message);
  }
  listener_.sink_failed(action.key, action.error);
}

void Driver::execute(SinkReleased& action, TimePoint) {
  listener_.sink_released(action.key, action.blocks);
}

void Driver::execute(DigestMismatch& action, TimePoint) {
  metrics_.digest_mismatch(action.source);
  LOG_WARN(
      "hand-off {}: layers {}..{} of tokens {}..{} from worker {:x}: digest {:016x} announced, "
      "{:016x} read; {}",
      to_string(action.key), action.range.layer_begin, action.range.layer_end,
      action.range.token_begin, action.range.token_end, action.source.value, action.announced,
      action.read, action.again ? "reading again" : "giving up");
}

}  // namespace baton::kvtransfer
