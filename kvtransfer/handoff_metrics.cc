#include "kvtransfer/handoff_metrics.h"

#include <fmt/format.h>

namespace baton::kvtransfer {
namespace {

constexpr const char* kPeerUp = "baton_kv_peer_up";

const std::vector<double>& transfer_bounds_seconds() {
  static const std::vector<double> bounds = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01,
                                             0.02,   0.05,   0.1,    0.2,   0.5,   1,     5};
  return bounds;
}

}  // namespace

HandoffMetrics::HandoffMetrics(Metrics& m)
    : digest_mismatches(m.counter("baton_kv_digest_mismatches_total",
                                  "Reads whose digest was not the announced one")),
      metrics_(m),
      bytes_(m.counter("baton_kv_read_bytes_total", "Bytes of KV read from other workers")),
      segments_(m.counter("baton_kv_read_segments_total",
                          "Descriptors of reads: runs, or pieces at equal distances")),
      reads_(m.counter("baton_kv_reads_total", "Reads, each checked as a whole")),
      rereads_(m.counter("baton_kv_rereads_total", "Reads that were done a second time")),
      ignored_(m.counter("baton_kv_ignored_messages_total",
                         "Messages that were stale, unknown, or from an unpaired worker")),
      refused_(m.counter("baton_kv_refused_total", "Hand-offs that a full decode worker refused")),
      as_source_(m.gauge("baton_kv_handoffs", "Open hand-offs", {{"role", "source"}})),
      as_sink_(m.gauge("baton_kv_handoffs", "Open hand-offs", {{"role", "sink"}})),
      parked_blocks_(m.gauge("baton_kv_parked_blocks", "Finished blocks that nobody reads yet")),
      exposed_seconds_(m.histogram("baton_kv_exposed_transfer_seconds",
                                   "From the commit's arrival to the last checked byte",
                                   transfer_bounds_seconds())),
      read_seconds_(m.histogram("baton_kv_announce_to_read_seconds",
                                "From an announce's arrival to the end of a read of it",
                                transfer_bounds_seconds())) {
  const std::array<Message, std::variant_size_v<Message>> one_of_each = {
      Credit{}, Refuse{}, Announce{}, Commit{}, Ack{}, Nack{}, Abort{}, Lease{}};
  for (const Message& message : one_of_each) {
    const std::string kind(name(message));
    sent_[message.index()] =
        &m.counter("baton_kv_messages_sent_total", "Hand-off messages sent", {{"kind", kind}});
    received_[message.index()] = &m.counter("baton_kv_messages_received_total",
                                            "Hand-off messages received", {{"kind", kind}});
  }
}

void HandoffMetrics::read(const StartRead& read, Duration since_announce) {
  uint64_t bytes = 0;
  for (const Segment& segment : read.segments) bytes += segment.total_bytes();
  reads_.Increment();
  segments_.Increment(static_cast<double>(read.segments.size()));
  bytes_.Increment(static_cast<double>(bytes));
  read_seconds_.Observe(to_seconds(since_announce));
}

void HandoffMetrics::joined(const SinkTimings& timings) {
  rereads_.Increment(timings.rereads);
  exposed_seconds_.Observe(to_seconds(timings.exposed));
  ended("sink", "joined");
}

void HandoffMetrics::ended(std::string_view role, std::string_view end) {
  metrics_
      .counter("baton_kv_handoffs_ended_total", "Hand-offs that ended, and how",
               {{"role", std::string(role)}, {"end", std::string(end)}})
      .Increment();
}

void HandoffMetrics::peer_up(WorkerId worker, std::string_view transport) {
  peer_gone(worker);  // it may have been up over another transport
  const Metrics::Labels labels = {{"peer", fmt::format("{:x}", worker.value)},
                                  {"transport", std::string(transport)}};
  metrics_.gauge(kPeerUp, "Workers paired with, and how reads from them travel", labels).Set(1);
  peers_[worker] = labels;
}

void HandoffMetrics::peer_gone(WorkerId worker) {
  const auto it = peers_.find(worker);
  if (it == peers_.end()) return;
  metrics_.remove_gauge(kPeerUp, it->second);
  peers_.erase(it);
}

void HandoffMetrics::update(const Source& source, const Sink& sink, uint64_t dropped_messages) {
  as_source_.Set(static_cast<double>(source.num_handoffs()));
  as_sink_.Set(static_cast<double>(sink.num_handoffs()));
  parked_blocks_.Set(source.parked_blocks());
  const uint64_t ignored =
      source.stats().ignored_messages + sink.stats().ignored_messages + dropped_messages;
  ignored_.Increment(static_cast<double>(ignored - ignored_so_far_));
  ignored_so_far_ = ignored;
  refused_.Increment(static_cast<double>(sink.stats().refused - refused_so_far_));
  refused_so_far_ = sink.stats().refused;
}

}  // namespace baton::kvtransfer
