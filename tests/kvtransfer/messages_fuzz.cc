// Whatever bytes a peer sends: they are refused, or they are a message that every state machine can
// be given. The first byte chooses whether they are a hello, a message, what a hello says of a
// GPU's memory, or a read request.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kvtransfer/codec.h"
#include "kvtransfer/compat.h"
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
  const Stream<ReadRange> stream(*ranges);
  std::vector<std::byte> piece(1000);
  for (uint64_t at = 0; at < std::min<uint64_t>(stream.bytes(), 1u << 16); at += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), stream.bytes() - at));
    gather(stream, region.data(), at, piece);
  }
}

// Whom it is paired with is asked, too, from either side.
void meet(const Hello& theirs) {
  if (decode_hello(encode(theirs)) != theirs) std::abort();
  Hello ours = theirs;
  ours.worker.value ^= 1;
  if (ours.worker.value == 0) return;
  if (pair(ours, theirs).has_value() != pair(theirs, ours).has_value()) std::abort();
}

// A cache in a GPU's memory, as the bytes say, with the right digest: what is looked at behind it.
void say_gpu(std::span<const std::byte> bytes) {
  Hello hello;
  hello.protocol_min = kProtocolDevice;
  hello.worker = kPeer;
  hello.layout = Machines::source_config().layout;
  hello.ranks.resize(1);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  text.resize(std::max<size_t>(text.size(), 16));
  Endpoint& endpoint = hello.ranks[0].endpoint;
  std::memcpy(&hello.ranks[0].num_blocks, text.data(), 4);
  std::memcpy(&endpoint.device.bytes, text.data() + 4, 8);
  const size_t cut = std::min<size_t>(static_cast<uint8_t>(text[12]), text.size() - 13);
  endpoint.device.gpu = text.substr(13, cut);
  endpoint.device.key = text.substr(13 + cut);
  endpoint.region.bytes = static_cast<uint8_t>(text[12]) > 250 ? 4096 : 0;
  if (const result<Hello> read = decode_hello(encode(hello))) meet(*read);
}

void fuzz(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::span<const std::byte> rest = bytes.subspan(1);
  switch (static_cast<uint8_t>(bytes[0]) % 4) {
    case 0: {
      const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
      if (const result<Hello> hello = decode_hello(text)) {
        meet(*hello);
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
    case 2:
      say_gpu(rest);
      return;
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
