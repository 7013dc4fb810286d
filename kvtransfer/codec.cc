#include "kvtransfer/codec.h"

#include <fmt/format.h>

#include <utility>

#include "common/proto/handoff.pb.h"

namespace baton::kvtransfer {
namespace {

Error corrupt(std::string_view message, std::string_view field, std::string_view why) {
  return error(Errc::kDataCorrupt, fmt::format("{}: {}: {}", message, field, why));
}

// `value` within [min, max], or the error.
status check_range(std::string_view message, std::string_view field, uint64_t value, uint64_t min,
                   uint64_t max) {
  if (value >= min && value <= max) return {};
  return corrupt(message, field, fmt::format("{} is not within [{}, {}]", value, min, max));
}

uint64_t to_us(Duration d) {
  return static_cast<uint64_t>(std::chrono::duration_cast<microseconds>(d).count());
}
result<Duration> from_us(std::string_view message, std::string_view field, uint64_t us) {
  BATON_CHECK_OK(check_range(message, field, us, 0, to_us(kMaxLease)));
  return Duration(microseconds(us));
}

// --- to the wire --------------------------------------------------------------------------------

void fill(proto::HandoffKey& out, const HandoffKey& key) {
  out.set_router(key.router.value);
  out.set_request(key.request.value);
  out.set_generation(key.generation.value);
}

void fill_body(proto::Handoff& out, const Credit& m) {
  proto::Credit& body = *out.mutable_credit();
  body.set_lease_us(to_us(m.lease));
  body.set_first_token(m.first_token);
  body.set_num_tokens(m.num_tokens);
  body.set_token_hash(m.token_hash);
}
void fill_body(proto::Handoff& out, const Refuse& m) {
  out.mutable_refuse()->set_retry_after_us(to_us(m.retry_after));
}
void fill_body(proto::Handoff& out, const Announce& m) {
  proto::Announce& body = *out.mutable_announce();
  body.set_layer_begin(m.layer_begin);
  body.set_layer_end(m.layer_end);
  body.set_first_block(m.first_block);
  body.set_token_end(m.token_end);
  for (const RankPart& part : m.parts) {
    proto::RankPart& out_part = *body.add_parts();
    for (const BlockId block : part.blocks) out_part.add_blocks(block.value);
    out_part.mutable_digests()->Add(part.digests.begin(), part.digests.end());
  }
}
void fill_body(proto::Handoff& out, const Commit& m) {
  proto::Commit& body = *out.mutable_commit();
  body.set_token_hash(m.token_hash);
  body.set_num_tokens(m.num_tokens);
  body.mutable_first_tokens()->Add(m.first_tokens.begin(), m.first_tokens.end());
  body.set_parked_us(to_us(m.parked));
}
void fill_body(proto::Handoff& out, const Ack&) { out.mutable_ack(); }
void fill_body(proto::Handoff& out, const Nack& m) {
  proto::Nack& body = *out.mutable_nack();
  body.set_reason(static_cast<uint32_t>(m.reason));
  body.set_layer_begin(m.layer_begin);
  body.set_layer_end(m.layer_end);
  body.set_token_begin(m.token_begin);
  body.set_token_end(m.token_end);
  body.set_announced_digest(m.announced_digest);
  body.set_read_digest(m.read_digest);
}
void fill_body(proto::Handoff& out, const Abort& m) {
  out.mutable_abort()->set_from_source(m.from_source);
  out.mutable_abort()->set_reason(static_cast<uint32_t>(m.reason));
}
void fill_body(proto::Handoff& out, const Lease& m) {
  proto::Lease& body = *out.mutable_lease();
  body.set_from_source(m.from_source);
  body.set_extends_us(to_us(m.extends));
  for (const HandoffKey& key : m.keys) fill(*body.add_keys(), key);
}

// --- from the wire ------------------------------------------------------------------------------

HandoffKey key_of(const proto::HandoffKey& in) {
  return {RouterId{in.router()}, RequestId{in.request()}, Generation{in.generation()}};
}

result<Message> parse(const HandoffKey& key, const proto::Credit& in) {
  BATON_TRY(const Duration lease, from_us("credit", "lease_us", in.lease_us()));
  BATON_CHECK_OK(check_range("credit", "num_tokens", in.num_tokens(), 1, kMaxTokens));
  BATON_CHECK_OK(check_range("credit", "first_token", in.first_token(), 0, in.num_tokens()));
  return Credit{key, lease, in.first_token(), in.num_tokens(), in.token_hash()};
}

result<Message> parse(const HandoffKey& key, const proto::Refuse& in) {
  BATON_TRY(const Duration after, from_us("refuse", "retry_after_us", in.retry_after_us()));
  return Refuse{key, after};
}

result<RankPart> parse_part(const proto::RankPart& in, uint64_t layers, int blocks) {
  if (in.blocks_size() != blocks) {
    return corrupt("announce", "parts", "ranks speak of different numbers of blocks");
  }
  if (static_cast<uint64_t>(in.digests_size()) != layers * static_cast<uint64_t>(blocks)) {
    return corrupt("announce", "digests",
                   fmt::format("{} for {} layers of {} blocks", in.digests_size(), layers, blocks));
  }
  RankPart part;
  part.blocks.reserve(in.blocks_size());
  for (const uint32_t block : in.blocks()) part.blocks.emplace_back(block);
  part.digests.assign(in.digests().begin(), in.digests().end());
  return part;
}

result<Message> parse(const HandoffKey& key, const proto::Announce& in) {
  BATON_CHECK_OK(check_range("announce", "layer_end", in.layer_end(), 1, kMaxDigests));
  BATON_CHECK_OK(check_range("announce", "layer_begin", in.layer_begin(), 0, in.layer_end() - 1));
  BATON_CHECK_OK(check_range("announce", "first_block", in.first_block(), 0, kMaxTokens));
  BATON_CHECK_OK(check_range("announce", "token_end", in.token_end(), 1, kMaxTokens));
  BATON_CHECK_OK(check_range("announce", "parts", in.parts_size(), 1, kMaxRanks));
  const int blocks = in.parts(0).blocks_size();
  BATON_CHECK_OK(check_range("announce", "blocks", blocks, 1, kMaxAnnounceBlocks));
  Announce m{key, in.layer_begin(), in.layer_end(), in.first_block(), in.token_end(), {}};
  for (const proto::RankPart& in_part : in.parts()) {
    BATON_TRY(RankPart part, parse_part(in_part, m.layer_end - m.layer_begin, blocks));
    m.parts.push_back(std::move(part));
  }
  return m;
}

result<Message> parse(const HandoffKey& key, const proto::Commit& in) {
  BATON_CHECK_OK(check_range("commit", "num_tokens", in.num_tokens(), 1, kMaxTokens));
  BATON_CHECK_OK(check_range("commit", "first_tokens", in.first_tokens_size(), 1, kMaxFirstTokens));
  for (const TokenId token : in.first_tokens()) {
    if (token < 0) return corrupt("commit", "first_tokens", fmt::format("token {}", token));
  }
  BATON_TRY(const Duration parked, from_us("commit", "parked_us", in.parked_us()));
  return Commit{key,
                in.token_hash(),
                in.num_tokens(),
                {in.first_tokens().begin(), in.first_tokens().end()},
                parked};
}

result<Message> parse(const HandoffKey& key, const proto::Ack&) { return Ack{key}; }

result<Message> parse(const HandoffKey& key, const proto::Nack& in) {
  BATON_CHECK_OK(check_range("nack", "reason", in.reason(), 1, 3));
  BATON_CHECK_OK(check_range("nack", "layer_end", in.layer_end(), 0, kMaxDigests));
  BATON_CHECK_OK(check_range("nack", "layer_begin", in.layer_begin(), 0, in.layer_end()));
  BATON_CHECK_OK(check_range("nack", "token_end", in.token_end(), 0, kMaxTokens));
  BATON_CHECK_OK(check_range("nack", "token_begin", in.token_begin(), 0, in.token_end()));
  return Nack{key,
              static_cast<NackReason>(in.reason()),
              in.layer_begin(),
              in.layer_end(),
              in.token_begin(),
              in.token_end(),
              in.announced_digest(),
              in.read_digest()};
}

result<Message> parse(const HandoffKey& key, const proto::Abort& in) {
  BATON_CHECK_OK(check_range("abort", "reason", in.reason(), 1, 9));
  return Abort{key, in.from_source(), static_cast<AbortReason>(in.reason())};
}

result<Message> parse(const proto::Lease& in) {
  BATON_TRY(const Duration extends, from_us("lease", "extends_us", in.extends_us()));
  BATON_CHECK_OK(check_range("lease", "keys", in.keys_size(), 0, kMaxLeaseKeys));
  Lease m{in.from_source(), extends, {}};
  m.keys.reserve(in.keys_size());
  for (const proto::HandoffKey& key : in.keys()) m.keys.push_back(key_of(key));
  return m;
}

}  // namespace

std::string encode(const Message& message) {
  proto::Handoff out;
  std::visit(
      [&out](const auto& m) {
        if constexpr (requires { m.key; }) fill(*out.mutable_key(), m.key);
        fill_body(out, m);
      },
      message);
  return out.SerializeAsString();
}

result<Message> decode_message(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxMessageBytes) {
    return corrupt("hand-off message", "size", fmt::format("{} bytes", bytes.size()));
  }
  proto::Handoff in;
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return corrupt("hand-off message", "body", "not a message");
  }
  if (in.body_case() != proto::Handoff::kLease && !in.has_key()) {
    return corrupt("hand-off message", "key", "missing");
  }
  const HandoffKey key = key_of(in.key());
  switch (in.body_case()) {
    case proto::Handoff::kCredit:
      return parse(key, in.credit());
    case proto::Handoff::kRefuse:
      return parse(key, in.refuse());
    case proto::Handoff::kAnnounce:
      return parse(key, in.announce());
    case proto::Handoff::kCommit:
      return parse(key, in.commit());
    case proto::Handoff::kAck:
      return parse(key, in.ack());
    case proto::Handoff::kNack:
      return parse(key, in.nack());
    case proto::Handoff::kAbort:
      return parse(key, in.abort());
    case proto::Handoff::kLease:
      return parse(in.lease());
    case proto::Handoff::BODY_NOT_SET:
      break;
  }
  return corrupt("hand-off message", "body", "of an unknown kind");
}

}  // namespace baton::kvtransfer
