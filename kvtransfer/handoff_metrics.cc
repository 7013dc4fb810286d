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

prometheus::Counter& leases(Metrics& m, const char* of) {
  return m.counter("baton_kv_leases_ended_total",
                   "Hand-offs whose other side fell silent until its lease ended", {{"of", of}});
}

// `now`: what it has come to.
void catch_up(prometheus::Counter& counter, uint64_t now) {
  counter.Increment(static_cast<double>(now) - counter.Value());
}

}  // namespace

HandoffMetrics::HandoffMetrics(Metrics& m)
    : metrics_(m),
      ignored_(m.counter("baton_kv_ignored_messages_total",
                         "Messages that were stale, unknown, or from an unpaired worker")),
      refused_(m.counter("baton_kv_refused_total", "Hand-offs that a full decode worker refused")),
      leases_of_sinks_(leases(m, "sink")),
      leases_of_sources_(leases(m, "source")),
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

HandoffMetrics::Reads& HandoffMetrics::reads_over(const std::string& transport) {
  const auto found = reads_.find(transport);
  if (found != reads_.end()) return found->second;
  const auto counter = [&](const char* name, const char* help) -> prometheus::Counter& {
    return metrics_.counter(name, help, {{"transport", transport}});
  };
  return reads_
      .emplace(transport,
               Reads{counter("baton_kv_reads_total", "Reads, each checked as a whole"),
                     counter("baton_kv_read_segments_total",
                             "Descriptors of reads: runs, or pieces at equal distances"),
                     counter("baton_kv_read_bytes_total", "Bytes of KV read from other workers"),
                     counter("baton_kv_rereads_total", "Reads that were done a second time"),
                     counter("baton_kv_digest_mismatches_total",
                             "Reads whose digest was not the announced one")})
      .first->second;
}

// A read may end after its source was lost.
HandoffMetrics::Reads& HandoffMetrics::reads_from(WorkerId source) {
  const auto peer = peers_.find(source);
  const bool known = peer != peers_.end() && peer->second.reads != nullptr;
  return known ? *peer->second.reads : reads_over("lost");
}

void HandoffMetrics::read(const StartRead& read, Duration since_announce) {
  uint64_t bytes = 0;
  for (const Segment& segment : read.segments) bytes += segment.total_bytes();
  Reads& series = reads_from(read.source);
  series.reads.Increment();
  series.segments.Increment(static_cast<double>(read.segments.size()));
  series.bytes.Increment(static_cast<double>(bytes));
  if (read.again) series.rereads.Increment();
  read_seconds_.Observe(to_seconds(since_announce));
}

void HandoffMetrics::digest_mismatch(WorkerId source) {
  reads_from(source).digest_mismatches.Increment();
}

void HandoffMetrics::joined(const SinkTimings& timings) {
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
  const bool is_read = transport != "none";
  peers_[worker] = {labels, is_read ? &reads_over(std::string(transport)) : nullptr};
}

void HandoffMetrics::peer_gone(WorkerId worker) {
  const auto it = peers_.find(worker);
  if (it == peers_.end()) return;
  metrics_.remove_gauge(kPeerUp, it->second.labels);
  peers_.erase(it);
}

void HandoffMetrics::update(const Source& source, const Sink& sink, uint64_t dropped_messages) {
  as_source_.Set(static_cast<double>(source.num_handoffs()));
  as_sink_.Set(static_cast<double>(sink.num_handoffs()));
  parked_blocks_.Set(source.parked_blocks());
  const uint64_t ignored =
      source.stats().ignored_messages + sink.stats().ignored_messages + dropped_messages;
  catch_up(ignored_, ignored);
  catch_up(refused_, sink.stats().refused);
  catch_up(leases_of_sinks_, source.stats().leases_ended);
  catch_up(leases_of_sources_, sink.stats().leases_ended);
}

}  // namespace baton::kvtransfer
