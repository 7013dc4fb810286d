#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>

#include "common/base/metrics.h"
#include "kvtransfer/sink.h"
#include "kvtransfer/source.h"

namespace baton::kvtransfer {

// The series of the hand-off, baton_kv_*. Used by the driver's thread.
class HandoffMetrics {
 public:
  explicit HandoffMetrics(Metrics& metrics);

  void message_sent(const Message& message) { sent_[message.index()]->Increment(); }
  void message_received(const Message& message) { received_[message.index()]->Increment(); }
  void read(const StartRead& read, Duration since_announce);
  void joined(const SinkTimings& timings);
  void ended(std::string_view role, std::string_view end);  // "sink"/"source"; "joined", an Errc
  void peer_up(WorkerId worker, std::string_view transport);
  void peer_gone(WorkerId worker);  // up or not
  // Levels and totals that the state machines keep.
  void update(const Source& source, const Sink& sink, uint64_t dropped_messages);

  prometheus::Counter& digest_mismatches;

 private:
  using PerMessage = std::array<prometheus::Counter*, std::variant_size_v<Message>>;

  Metrics& metrics_;
  PerMessage sent_, received_;
  std::map<WorkerId, Metrics::Labels> peers_;  // that are up
  prometheus::Counter& bytes_;
  prometheus::Counter& segments_;
  prometheus::Counter& reads_;
  prometheus::Counter& rereads_;
  prometheus::Counter& ignored_;
  prometheus::Counter& refused_;
  prometheus::Gauge& as_source_;
  prometheus::Gauge& as_sink_;
  prometheus::Gauge& parked_blocks_;
  prometheus::Histogram& exposed_seconds_;
  prometheus::Histogram& read_seconds_;
  uint64_t ignored_so_far_ = 0, refused_so_far_ = 0;
};

}  // namespace baton::kvtransfer
