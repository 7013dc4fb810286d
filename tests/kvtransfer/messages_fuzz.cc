// Whatever bytes a peer sends: they are refused, or they are a message that every state machine can
// be given. The first bytes choose whether they are a hello, a message or a read request.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "kvtransfer/codec.h"
#include "kvtransfer/sink.h"
#include "kvtransfer/source.h"
#include "kvtransfer/wire_read.h"

namespace baton::kvtransfer {
namespace {

constexpr WorkerId kPeer{3};
constexpr TimePoint kNow = TimePoint{} + seconds(1000);

// A source and a sink with an open hand-off 1/1.1 each.
struct Machines {
  Machines() : source(source_config()), sink(sink_config()) {
    const HandoffKey key{RouterId{1}, RequestId{1}, Generation{1}};
    (void)source.begin({key, kPeer, 40, 7, kNow + seconds(9)}, kNow, source_actions);
    sink.add_source(kPeer, source_config().layout, 100);
    (void)sink.reserve(
        {key, kPeer, {BlockId{1}, BlockId{2}, BlockId{3}}, 0, 40, 7, kNow + seconds(9)}, kNow,
        sink_actions);
  }
  static SourceConfig source_config() {
    SourceConfig c;
    c.layout = kvcache::KvLayout::full_kv(3, 1, 4, DType::kBF16, 16);
    return c;
  }
  static SinkConfig sink_config() {
    SinkConfig c;
    c.layout = source_config().layout;
    c.num_blocks = 64;
    return c;
  }

  void take(Message& message) {
    std::visit([this](auto& m) { give(m); }, message);
    source.tick(kNow + seconds(2), source_actions);
    sink.tick(kNow + seconds(2), sink_actions);
  }
  void give(Credit& m) { source.on_credit(kPeer, m, kNow, source_actions); }
  void give(Refuse& m) { source.on_refuse(kPeer, m, kNow, source_actions); }
  void give(Ack& m) { source.on_ack(kPeer, m, kNow, source_actions); }
  void give(Nack& m) { source.on_nack(kPeer, m, kNow, source_actions); }
  void give(Announce& m) { sink.on_announce(kPeer, std::move(m), kNow, sink_actions); }
  void give(Commit& m) { sink.on_commit(kPeer, std::move(m), kNow, sink_actions); }
  void give(Abort& m) {
    source.on_abort(kPeer, m, kNow, source_actions);
    sink.on_abort(kPeer, m, kNow, sink_actions);
  }
  void give(Lease& m) {
    source.on_lease(kPeer, m, kNow, source_actions);
    sink.on_lease(kPeer, m, kNow, sink_actions);
  }

  Source source;
  Sink sink;
  SourceActions source_actions;
  SinkActions sink_actions;
};

// As the owner of a little region would; the sanitizer sees a byte that is read beside it.
void answer(std::span<const std::byte> request) {
  static const std::vector<std::byte> region(1u << 12);
  const auto ranges = decode_read_request(request, region.size());
  if (!ranges) return;
  const uint64_t total = total_bytes(*ranges);
  std::vector<std::byte> piece(1000);
  for (uint64_t at = 0; at < std::min<uint64_t>(total, 1u << 16); at += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), total - at));
    gather(*ranges, region.data(), at, piece);
  }
}

void fuzz(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::span<const std::byte> rest = bytes.subspan(1);
  switch (static_cast<uint8_t>(bytes[0]) % 3) {
    case 0: {
      const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
      if (const result<Hello> hello = decode_hello(text)) {
        if (decode_hello(encode(*hello)) != hello) std::abort();
      }
      return;
    }
    case 1: {
      result<Message> message = decode_message(rest);
      if (!message) return;
      const std::string again = encode(*message);
      if (decode_message(std::as_bytes(std::span(again))) != message) std::abort();
      Machines().take(*message);
      return;
    }
    default:
      answer(rest);
  }
}

}  // namespace
}  // namespace baton::kvtransfer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const google::protobuf::LogSilencer silence;
  baton::kvtransfer::fuzz(std::as_bytes(std::span(data, size)));
  return 0;
}
