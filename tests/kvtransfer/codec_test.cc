#include "kvtransfer/codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "common/proto/handoff.pb.h"

namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;

constexpr HandoffKey kKey{RouterId{0xfeedfeedfeedfeedu}, RequestId{7}, Generation{3}};

Hello hello() {
  Hello h;
  h.worker = WorkerId{42};
  h.layout = kvcache::KvLayout::full_kv(4, 2, 8, DType::kBF16, 16);
  h.layout.rope = "theta=10000";
  h.model_key = "weights/tokenizer";
  h.numerics = "avx2/tp1";
  h.ranks = {{0,
              10,
              {std::string("\0bin", 4),
               "host",
               true,
               99,
               {4096, 10 * h.layout.block_bytes(), std::string("k\0y", 3)},
               "ucx 1.13",
               {}}}};
  return h;
}

// Its cache is in a GPU's memory.
Hello gpu_hello() {
  Hello h = hello();
  h.protocol_min = kProtocolDevice;
  h.ranks[0].endpoint.region.base = h.ranks[0].endpoint.region.bytes = 0;
  h.ranks[0].endpoint.device = {"GPU-1234", 10 * h.layout.block_bytes(), std::string("h\0e", 3)};
  return h;
}

result<Message> decode(const std::string& bytes) {
  return decode_message(std::as_bytes(std::span(bytes)));
}

TEST(Codec, HelloRoundTrip) {
  const Hello h = hello();
  const result<Hello> back = decode_hello(encode(h));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, h);
}

TEST(Codec, HelloOfSeveralRanksRoundTrips) {
  Hello h = hello();
  h.layout.shard_heads.assign(h.layout.num_heads(), 1);
  const result<Hello> back = decode_hello(encode(h));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, h);
}

TEST(Codec, HelloOfACacheInAGpuRoundTrips) {
  const result<Hello> back = decode_hello(encode(gpu_hello()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, gpu_hello());
}

// One that knows nothing of GPUs reads all else, so that it refuses by the protocol's number.
TEST(Codec, OlderWorkersReadAGpusHello) {
  proto::Hello message;
  ASSERT_TRUE(message.ParseFromString(encode(gpu_hello())));
  message.mutable_ranks(0)->clear_device();
  const result<Hello> back = decode_hello(message.SerializeAsString());
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->protocol_min, kProtocolDevice);
  EXPECT_EQ(back->ranks[0].num_blocks, 0u);
}

TEST(Codec, EveryMessageRoundTrips) {
  Announce announce{kKey, 2,   4,
                    5,    100, {RankPart{{BlockId{9}, BlockId{3}}, {1, 2, UINT64_MAX, 4}}}};
  const Message all[] = {
      Credit{kKey, seconds(5), 32, 100, 0xabcdef0123456789u},
      Refuse{kKey, milliseconds(250)},
      announce,
      Commit{kKey, 5, 100, {1, 2, 3}},
      Ack{kKey},
      Nack{kKey, NackReason::kMismatch, 1, 2, 16, 32, 77, 88},
      Abort{kKey, true, AbortReason::kSuperseded},
      Lease{false, seconds(3), {kKey, {}}},
      Lease{},
  };
  for (const Message& message : all) {
    const result<Message> back = decode(encode(message));
    ASSERT_TRUE(back) << name(message) << ": " << back.error().message;
    EXPECT_EQ(*back, message) << name(message);
  }
}

TEST(Codec, TheLargestMessagesFit) {
  Announce announce{kKey, 0, 4, 0, kMaxTokens, {RankPart{}}};
  announce.parts[0].blocks.assign(kMaxAnnounceBlocks, BlockId{UINT32_MAX});
  announce.parts[0].digests.assign(kMaxDigests, UINT64_MAX);
  EXPECT_LE(encode(announce).size(), kMaxMessageBytes);
  const HandoffKey key{RouterId{1}, RequestId{2}, Generation{UINT64_MAX}};
  EXPECT_LE(encode(Lease{true, kMaxLease, std::vector<HandoffKey>(kMaxLeaseKeys, key)}).size(),
            kMaxMessageBytes);
}

// One field made impossible; the sentence names it.
struct BadMessage {
  const char* what;
  std::function<void(proto::Handoff&)> spoil;
  const char* named;
};
proto::Handoff good() {
  proto::Handoff m;
  m.mutable_key()->set_request(1);
  return m;
}
const BadMessage kBadMessages[] = {
    {"nothing", [](auto&) {}, "body"},
    {"no key", [](auto& m) { m.clear_key(), m.mutable_ack(); }, "key"},
    {"no tokens", [](auto& m) { m.mutable_credit(); }, "num_tokens"},
    {"too many tokens", [](auto& m) { m.mutable_credit()->set_num_tokens(UINT32_MAX); },
     "num_tokens"},
    {"credit beyond the end",
     [](auto& m) { m.mutable_credit()->set_num_tokens(5), m.mutable_credit()->set_first_token(6); },
     "first_token"},
    {"endless lease", [](auto& m) { m.mutable_credit()->set_lease_us(UINT64_MAX); }, "lease_us"},
    {"endless wait", [](auto& m) { m.mutable_refuse()->set_retry_after_us(UINT64_MAX); },
     "retry_after_us"},
    {"no layers", [](auto& m) { m.mutable_announce(); }, "layer_end"},
    {"layers reversed",
     [](auto& m) {
       m.mutable_announce()->set_layer_begin(3), m.mutable_announce()->set_layer_end(2);
     },
     "layer_begin"},
    {"no ranks",
     [](auto& m) {
       m.mutable_announce()->set_layer_end(1), m.mutable_announce()->set_token_end(1);
     },
     "parts"},
    {"no blocks",
     [](auto& m) {
       m.mutable_announce()->set_layer_end(1), m.mutable_announce()->set_token_end(1);
       m.mutable_announce()->add_parts();
     },
     "blocks"},
    {"digest missing",
     [](auto& m) {
       m.mutable_announce()->set_layer_end(2), m.mutable_announce()->set_token_end(1);
       m.mutable_announce()->add_parts()->add_blocks(1);
       m.mutable_announce()->mutable_parts(0)->add_digests(1);
     },
     "digests"},
    {"no first token", [](auto& m) { m.mutable_commit()->set_num_tokens(1); }, "first_tokens"},
    {"negative token",
     [](auto& m) {
       m.mutable_commit()->set_num_tokens(1), m.mutable_commit()->add_first_tokens(-1);
     },
     "first_tokens"},
    {"unknown nack", [](auto& m) { m.mutable_nack()->set_reason(4); }, "reason"},
    {"unknown abort", [](auto& m) { m.mutable_abort()->set_reason(0); }, "reason"},
    {"too many keys",
     [](auto& m) {
       for (size_t i = 0; i <= kMaxLeaseKeys; ++i) m.mutable_lease()->add_keys();
     },
     "keys"},
};

TEST(Codec, ImpossibleMessagesAreRefusedByName) {
  for (const BadMessage& bad : kBadMessages) {
    proto::Handoff message = good();
    bad.spoil(message);
    const result<Message> back = decode(message.SerializeAsString());
    ASSERT_FALSE(back) << bad.what;
    EXPECT_EQ(back.error().code, Errc::kDataCorrupt);
    EXPECT_THAT(back.error().message, HasSubstr(bad.named)) << bad.what;
  }
}

struct BadHello {
  const char* what;
  std::function<void(proto::Hello&)> spoil;
  const char* named;
};
const BadHello kBadHellos[] = {
    {"shards of too many heads", [](auto& h) { h.mutable_layout()->add_shard_heads(99); },
     "shards"},
    {"too many shards",
     [](auto& h) {
       for (int i = 0; i < 65; ++i) h.mutable_layout()->add_shard_heads(1);
     },
     "shard_heads"},
    {"no protocol", [](auto& h) { h.set_protocol_min(0); }, "protocol"},
    {"protocols reversed", [](auto& h) { h.set_protocol_min(9); }, "protocol"},
    {"nobody", [](auto& h) { h.set_worker(0); }, "worker"},
    {"no layout", [](auto& h) { h.clear_layout(); }, "layer groups"},
    {"unknown dtype", [](auto& h) { h.mutable_layout()->set_dtype(200); }, "dtype"},
    {"unknown kind", [](auto& h) { h.mutable_layout()->mutable_groups(0)->set_kind(77); }, "kind"},
    {"impossible block", [](auto& h) { h.mutable_layout()->set_block_tokens(0); }, "block"},
    {"no rank", [](auto& h) { h.clear_ranks(); }, "ranks"},
    {"no region", [](auto& h) { h.mutable_ranks(0)->clear_regions(); }, "regions"},
    {"two regions", [](auto& h) { h.mutable_ranks(0)->add_regions(); }, "regions"},
    {"region too small",
     [](auto& h) { h.mutable_ranks(0)->mutable_regions(0)->set_num_blocks(11); }, "bytes"},
    {"region wraps",
     [](auto& h) { h.mutable_ranks(0)->mutable_regions(0)->set_base(UINT64_MAX - 5); }, "base"},
    {"endless address",
     [](auto& h) { h.mutable_ranks(0)->set_address(std::string(kMaxBlobBytes + 1, 'x')); },
     "address"},
    {"endless key", [](auto& h) { h.set_model_key(std::string(kMaxTextBytes + 1, 'x')); },
     "model_key"},
};

TEST(Codec, ImpossibleHellosAreRefusedByName) {
  for (const BadHello& bad : kBadHellos) {
    proto::Hello message;
    ASSERT_TRUE(message.ParseFromString(encode(hello())));
    bad.spoil(message);
    const result<Hello> back = decode_hello(message.SerializeAsString());
    ASSERT_FALSE(back) << bad.what;
    EXPECT_THAT(back.error().message, HasSubstr(bad.named)) << bad.what;
  }
}

const BadHello kBadGpuHellos[] = {
    {"no GPU", [](auto& h) { h.mutable_ranks(0)->mutable_device()->clear_gpu(); }, "device.gpu"},
    {"an endless name",
     [](auto& h) {
       h.mutable_ranks(0)->mutable_device()->set_gpu(std::string(kMaxTextBytes + 1, 'x'));
     },
     "device.gpu"},
    {"an endless key",
     [](auto& h) {
       h.mutable_ranks(0)->mutable_device()->set_key(std::string(kMaxBlobBytes + 1, 'x'));
     },
     "device.key"},
    {"too small", [](auto& h) { h.mutable_ranks(0)->mutable_device()->set_num_blocks(11); },
     "device.bytes"},
    {"another GPU", [](auto& h) { h.mutable_ranks(0)->mutable_device()->set_gpu("GPU-1235"); },
     "device.digest"},
    {"more memory",
     [](auto& h) {
       auto& device = *h.mutable_ranks(0)->mutable_device();
       device.set_bytes(device.bytes() + 1);
     },
     "device.digest"},
    {"another key", [](auto& h) { (*h.mutable_ranks(0)->mutable_device()->mutable_key())[1] = 1; },
     "device.digest"},
    {"other blocks", [](auto& h) { h.mutable_ranks(0)->mutable_device()->set_num_blocks(9); },
     "device.digest"},
    {"no digest", [](auto& h) { h.mutable_ranks(0)->mutable_device()->clear_digest(); },
     "device.digest"},
};

TEST(Codec, ImpossibleHellosOfGpusAreRefusedByName) {
  for (const BadHello& bad : kBadGpuHellos) {
    proto::Hello message;
    ASSERT_TRUE(message.ParseFromString(encode(gpu_hello())));
    bad.spoil(message);
    const result<Hello> back = decode_hello(message.SerializeAsString());
    ASSERT_FALSE(back) << bad.what;
    EXPECT_EQ(back.error().code, Errc::kDataCorrupt);
    EXPECT_THAT(back.error().message, HasSubstr(bad.named)) << bad.what;
  }
}

TEST(Codec, ACacheIsInOneMemory) {
  Hello both = gpu_hello();
  both.ranks[0].endpoint.region.bytes = 4096;
  const result<Hello> back = decode_hello(encode(both));
  ASSERT_FALSE(back);
  EXPECT_THAT(back.error().message, HasSubstr("two memories"));
}

// What a transport would be given, and would believe.
TEST(Codec, AnEndpointIsAsItWasSentOrRefused) {
  const std::function<void(proto::RankInfo&)> damages[] = {
      [](auto& r) { (*r.mutable_address())[2] ^= 1; },
      [](auto& r) { r.mutable_address()->pop_back(); },
      [](auto& r) { (*r.mutable_regions(0)->mutable_key())[1] ^= 1; },
      [](auto& r) { r.mutable_regions(0)->clear_key(); },
      [](auto& r) { r.mutable_regions(0)->set_base(8192); },
      [](auto& r) { r.mutable_regions(0)->set_num_blocks(9); },
      [](auto& r) { r.set_pid(98); },
      [](auto& r) { r.set_host("hos"), r.set_software("tucx 1.13"); },
      [](auto& r) { r.set_shared_memory(false); },
      [](auto& r) { r.set_software("ucx 1.14"); },
      [](auto& r) { r.set_head_begin(1); },
      [](auto& r) { r.clear_digest(); },
  };
  for (size_t i = 0; i < std::size(damages); ++i) {
    proto::Hello message;
    ASSERT_TRUE(message.ParseFromString(encode(hello())));
    damages[i](*message.mutable_ranks(0));
    const result<Hello> back = decode_hello(message.SerializeAsString());
    ASSERT_FALSE(back) << i;
    EXPECT_EQ(back.error().code, Errc::kDataCorrupt);
    EXPECT_THAT(back.error().message, HasSubstr("ranks.digest")) << i;
  }
}

TEST(Codec, DamagedBytesNeverCrash) {
  const std::string bytes[] = {encode(Announce{kKey, 0, 1, 0, 16, {RankPart{{BlockId{9}}, {1}}}}),
                               encode(Lease{true, seconds(1), {kKey, kKey}}), encode(hello()),
                               encode(gpu_hello())};
  const google::protobuf::LogSilencer silence;  // it logs each text that is not UTF-8
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string damaged = bytes[i % 4];
    for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    damaged.resize(random() % (damaged.size() + 1));
    (void)decode(damaged);
    (void)decode_hello(damaged);
  }
}

}  // namespace
}  // namespace baton::kvtransfer
