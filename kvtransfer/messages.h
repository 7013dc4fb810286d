#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/kvcache/layout.h"
#include "kvtransfer/endpoint.h"

// What two workers say to each other about a hand-off, as native values. The source computed the
// prompt and holds its KV; the sink reads it and decodes. docs/handoff.md tells the whole story.
namespace baton::kvtransfer {

// 2: a read over the network asks for strided ranges (wire_read.h). Nothing of 1 is spoken any
// more. 3: a cache may be in several shards, which a hello of 2 has no words for. 4: a read over
// the network may be answered in turns, which its reader asks for; who speaks 3 or less neither
// asks for them nor is asked. 5: a cache may be read in a GPU's memory, which a hello of 4 has no
// words for.
inline constexpr uint32_t kProtocolMin = 2;
inline constexpr uint32_t kProtocolMax = 5;
inline constexpr uint32_t kProtocolShards = 3;
inline constexpr uint32_t kProtocolTurns = 4;
inline constexpr uint32_t kProtocolDevice = 5;

// Caps on what a peer may send; the codec refuses more.
inline constexpr size_t kMaxMessageBytes = 192u << 10;
inline constexpr size_t kMaxDigests = 16u << 10;    // in one Announce
inline constexpr size_t kMaxAnnounceBlocks = 4096;  // in one Announce
inline constexpr size_t kMaxFirstTokens = 256;      // choices of one request
inline constexpr size_t kMaxLeaseKeys = 2048;       // in one Lease
inline constexpr uint32_t kMaxTokens = 16u << 20;   // of one sequence
inline constexpr Duration kMaxLease = seconds(600);
inline constexpr size_t kMaxRanks = 64;
inline constexpr size_t kMaxBlobBytes = 64u << 10;  // address or key
inline constexpr size_t kMaxTextBytes = 4096;       // fingerprints, host, sentences

// One attempt to hand over one request. A higher generation fences what the lower ones left.
using HandoffKey = RequestKey;
std::string to_string(const HandoffKey& key);

// One process of a worker, with its part of the heads.
struct Rank {
  uint32_t head_begin = 0;  // first KV head held here
  uint32_t num_blocks = 0;  // blocks in its memory, numbered from its start
  Endpoint endpoint;
  friend bool operator==(const Rank&, const Rank&) = default;
};

// Who a worker is. Exchanged over the workers' authenticated RPC when they meet; everything below
// travels over Transport::notify.
struct Hello {
  uint32_t protocol_min = kProtocolMin;
  uint32_t protocol_max = kProtocolMax;
  WorkerId worker;
  kvcache::KvLayout layout;  // of rank 0; other ranks differ in head_begin only
  std::string model_key;     // fingerprint of weights, adapter, tokenizer
  std::string numerics;      // fingerprint of the arithmetic: equal = equal tokens
  std::vector<Rank> ranks;   // one in version 1
  friend bool operator==(const Hello&, const Hello&) = default;
};

// Sink to source: I have room for [first_token, num_tokens) of this prompt and hold what is before.
// Sent again while nothing has been heard.
struct Credit {
  HandoffKey key;
  Duration lease{};          // held so long after the last message from either side
  uint32_t first_token = 0;  // a multiple of both sides' block_tokens, or num_tokens
  uint32_t num_tokens = 0;
  uint64_t token_hash = 0;  // kvcache::hash_tokens of the prompt
  friend bool operator==(const Credit&, const Credit&) = default;
};

// Sink to source: full now. The source parks the KV.
struct Refuse {
  HandoffKey key;
  Duration retry_after{};
  friend bool operator==(const Refuse&, const Refuse&) = default;
};

// What one rank holds of an Announce.
struct RankPart {
  std::vector<BlockId> blocks;    // [num_blocks], in sequence order
  std::vector<uint64_t> digests;  // [num_layers, num_blocks], kvcache::digest_layer of each
  friend bool operator==(const RankPart&, const RankPart&) = default;
};

// Source to sink: these layers of these blocks are final and may be read.
struct Announce {
  HandoffKey key;
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t first_block = 0;     // index in the sequence, in the source's blocks
  uint32_t token_end = 0;       // one past the last position covered; ends a block or the prompt
  std::vector<RankPart> parts;  // one a rank of the source
  friend bool operator==(const Announce&, const Announce&) = default;
};

// Source to sink: everything has been announced; go on from these tokens. Sent again until Ack.
struct Commit {
  HandoffKey key;
  uint64_t token_hash = 0;
  uint32_t num_tokens = 0;            // prompt tokens, all with KV
  std::vector<TokenId> first_tokens;  // one a choice
  Duration parked{};                  // from the end of prefill until there was a credit
  friend bool operator==(const Commit&, const Commit&) = default;
};

// Sink to source: all is here and checked; free it.
struct Ack {
  HandoffKey key;
  friend bool operator==(const Ack&, const Ack&) = default;
};

enum class NackReason : uint8_t {
  kMissing = 1,   // committed, but some layers were never announced: announce again
  kMismatch = 2,  // a digest differed twice: the KV below is not what was announced
  kUnknown = 3,   // no such hand-off here (any more)
};
std::string_view name(NackReason reason);

// Sink to source: it cannot be used as it is.
struct Nack {
  HandoffKey key;
  NackReason reason = NackReason::kUnknown;
  // kMismatch: what differed.
  uint32_t layer_begin = 0, layer_end = 0;
  uint32_t token_begin = 0, token_end = 0;
  uint64_t announced_digest = 0, read_digest = 0;
  friend bool operator==(const Nack&, const Nack&) = default;
};

enum class AbortReason : uint8_t {
  kCancelled = 1,      // nobody wants the answer any more
  kNotNeeded = 2,      // the first token was the last
  kDeadline = 3,       // waited as long as allowed
  kSuperseded = 4,     // a newer generation took its place
  kTokenMismatch = 5,  // the two sides speak of different prompts
  kProtocol = 6,       // a message that cannot be
  kReadFailed = 7,     // the transport could not read
  kUnknown = 8,        // no such hand-off here (any more)
  kFailed = 9,         // the sender could not go on
};
std::string_view name(AbortReason reason);

// Either side: this hand-off is over here.
struct Abort {
  HandoffKey key;
  bool from_source = false;
  AbortReason reason = AbortReason::kFailed;
  friend bool operator==(const Abort&, const Abort&) = default;
};

// Either side: alive, and still holding these. Without keys, a heartbeat.
struct Lease {
  bool from_source = false;
  Duration extends{};
  std::vector<HandoffKey> keys;
  friend bool operator==(const Lease&, const Lease&) = default;
};

using Message = std::variant<Credit, Refuse, Announce, Commit, Ack, Nack, Abort, Lease>;

// For logs and metric labels: "credit", "announce", ...
std::string_view name(const Message& message);

// An action of both state machines: send this to that worker.
struct SendMessage {
  WorkerId to;
  Message message;
};

// The Leases, as many as the cap asks for, that name `keys`.
std::vector<Lease> make_leases(std::vector<HandoffKey> keys, bool from_source, Duration extends);

}  // namespace baton::kvtransfer
