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
  void digest_mismatch(WorkerId source);
  void joined(const SinkTimings& timings);
  void ended(std::string_view role, std::string_view end);  // "sink"/"source"; "joined", an Errc
  void peer_up(WorkerId worker, std::string_view transport);
  void peer_gone(WorkerId worker);  // up or not
  // Levels and totals that the state machines keep.
  void update(const Source& source, const Sink& sink, uint64_t dropped_messages);

 private:
  // What was read over one transport.
  struct Reads {
    prometheus::Counter& reads;
    prometheus::Counter& segments;
    prometheus::Counter& bytes;
    prometheus::Counter& rereads;
    prometheus::Counter& digest_mismatches;
  };
  struct Peer {
    Metrics::Labels labels;
    Reads* reads = nullptr;  // none if it is not read
  };
  Reads& reads_over(const std::string& transport);
  Reads& reads_from(WorkerId source);

  using PerMessage = std::array<prometheus::Counter*, std::variant_size_v<Message>>;

  Metrics& metrics_;
  PerMessage sent_, received_;
  std::map<WorkerId, Peer> peers_;      // that are up
  std::map<std::string, Reads> reads_;  // by transport
  prometheus::Counter& ignored_;
  prometheus::Counter& refused_;
  prometheus::Counter& leases_of_sinks_;
  prometheus::Counter& leases_of_sources_;
  prometheus::Gauge& as_source_;
  prometheus::Gauge& as_sink_;
  prometheus::Gauge& parked_blocks_;
  prometheus::Histogram& exposed_seconds_;
  prometheus::Histogram& read_seconds_;
};

}  // namespace baton::kvtransfer
