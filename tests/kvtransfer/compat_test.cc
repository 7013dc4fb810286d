#include "kvtransfer/compat.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace baton::kvtransfer {
namespace {

using ::testing::HasSubstr;

Hello hello(uint64_t worker) {
  Hello h;
  h.worker = WorkerId{worker};
  h.layout = kvcache::KvLayout::full_kv(4, 2, 8, DType::kBF16, 16);
  h.model_key = "model-a";
  h.numerics = "num-a";
  h.ranks.resize(1);
  h.ranks[0].endpoint.software = "ucx 1.13";
  return h;
}

TEST(Pair, EqualWorkersPair) {
  const result<Pairing> pairing = pair(hello(1), hello(2));
  ASSERT_TRUE(pairing) << pairing.error().message;
  EXPECT_EQ(pairing->protocol, kProtocolMax);
  EXPECT_EQ(pairing->granule_tokens, 16u);
}

TEST(Pair, TheNewestCommonProtocolIsSpoken) {
  Hello ours = hello(1), theirs = hello(2);
  ours.protocol_max = 5;
  theirs.protocol_max = 3;
  EXPECT_EQ(pair(ours, theirs)->protocol, 3u);
}

TEST(Pair, BlockSizesMayDiffer) {
  Hello theirs = hello(2);
  theirs.layout.block_tokens = 64;
  EXPECT_EQ(pair(hello(1), theirs)->granule_tokens, 64u);
  EXPECT_EQ(pair(theirs, hello(1))->granule_tokens, 64u);
}

TEST(Pair, TensorParallelDegreesMayDiffer) {
  Hello theirs = hello(2);
  theirs.layout.shard_heads = {1, 1};
  theirs.protocol_min = kProtocolShards;
  EXPECT_TRUE(pair(hello(1), theirs));
  Hello old = hello(3);
  old.protocol_max = kProtocolShards - 1;
  EXPECT_FALSE(pair(old, theirs));
}

struct Unfit {
  std::function<void(Hello&)> change;
  const char* ours;  // both values are in the sentence
  const char* theirs;
};
const Unfit kUnfit[] = {
    {[](Hello& h) { h.protocol_min = 6, h.protocol_max = 7; }, "2..5", "6..7"},
    {[](Hello& h) { h.model_key = "model-b"; }, "model-a", "model-b"},
    {[](Hello& h) { h.numerics = "num-b"; }, "num-a", "num-b"},
    {[](Hello& h) { h.layout.rope = "scaled"; }, "''", "scaled"},
    {[](Hello& h) { h.layout.groups[0].layer_end = 5; }, "'4'", "'5'"},
    {[](Hello& h) { h.layout.dtype = DType::kF16; }, "bf16", "f16"},
    {[](Hello& h) { h.layout = kvcache::KvLayout::full_kv(4, 3, 8, DType::kBF16, 16); }, "'2'",
     "'3'"},
    {[](Hello& h) { h.layout = kvcache::KvLayout::full_kv(4, 2, 16, DType::kBF16, 16); }, "'16'",
     "'32'"},
    {[](Hello& h) {
       h.layout = kvcache::KvLayout::full_kv(4, 1, 8, DType::kBF16, 16);
       h.layout.total_heads = 2;
     },
     "0..2", "0..1"},
    {[](Hello& h) { h.ranks.resize(2); }, "'1'", "'2'"},
    {[](Hello& h) { h.ranks[0].endpoint.software = "ucx 1.16"; }, "'ucx 1.13'", "'ucx 1.16'"},
};

TEST(Pair, WhatDoesNotFitIsRefusedWithBothValues) {
  for (const Unfit& unfit : kUnfit) {
    Hello theirs = hello(2);
    unfit.change(theirs);
    const result<Pairing> pairing = pair(hello(1), theirs);
    ASSERT_FALSE(pairing) << unfit.theirs;
    EXPECT_EQ(pairing.error().code, Errc::kUnsupported);
    EXPECT_THAT(pairing.error().message, HasSubstr(unfit.ours));
    EXPECT_THAT(pairing.error().message, HasSubstr(unfit.theirs));
    EXPECT_FALSE(pair(theirs, hello(1))) << "not symmetric";
  }
}

// Also where the values could be turned into the other's exactly: what decodes from them would
// have computed others. The fingerprint says so, as a model's does, and if it did not, the layout.
TEST(Pair, DtypesAreNeverConverted) {
  for (const DType ours : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const DType theirs : {DType::kBF16, DType::kF16, DType::kF32}) {
      Hello here = hello(1), there = hello(2);
      here.layout = kvcache::KvLayout::full_kv(4, 2, 8, ours, 16);
      there.layout = kvcache::KvLayout::full_kv(4, 2, 8, theirs, 16);
      for (const bool told : {false, true}) {
        if (told) {
          here.numerics = fmt::format("num weights={0} cache={0}", name(ours));
          there.numerics = fmt::format("num weights={0} cache={0}", name(theirs));
        }
        const result<Pairing> pairing = pair(here, there);
        EXPECT_EQ(static_cast<bool>(pairing), ours == theirs);
        if (ours == theirs) continue;
        EXPECT_EQ(pairing.error().code, Errc::kUnsupported);
        EXPECT_THAT(pairing.error().message, HasSubstr(told ? "numerics" : "cache dtype"));
        EXPECT_THAT(pairing.error().message, HasSubstr(std::string(name(ours))));
        EXPECT_THAT(pairing.error().message, HasSubstr(std::string(name(theirs))));
      }
    }
  }
}

// A worker of the protocol before asks for reads in another form: it would be refused each of them.
TEST(Pair, OlderProtocolsAreRefused) {
  Hello theirs = hello(2);
  theirs.protocol_min = theirs.protocol_max = 1;
  const result<Pairing> pairing = pair(hello(1), theirs);
  ASSERT_FALSE(pairing);
  EXPECT_EQ(pairing.error().code, Errc::kUnsupported);
  EXPECT_THAT(pairing.error().message, HasSubstr("protocol here is '2..5', there '1..1'"));
}

Hello on_gpu(uint64_t worker) {
  Hello h = hello(worker);
  h.protocol_min = kProtocolDevice;
  h.ranks[0].endpoint.host = "here";
  h.ranks[0].endpoint.device = {fmt::format("GPU-{}", worker), 4096, "key"};
  return h;
}

TEST(Pair, CachesInTheGpusOfOneHostPair) {
  Hello theirs = on_gpu(2);
  EXPECT_TRUE(pair(on_gpu(1), theirs));
  theirs.ranks[0].endpoint.device = on_gpu(1).ranks[0].endpoint.device;  // on one GPU, too
  EXPECT_TRUE(pair(on_gpu(1), theirs));
}

const Unfit kUnfitForGpus[] = {
    {[](Hello& h) { h.ranks[0].endpoint.device = {}; }, "'device'", "'host'"},
    {[](Hello& h) { h.ranks[0].endpoint.host = "there"; }, "'here'", "'there'"},
    {[](Hello& h) { h.layout.block_tokens = 32; }, "block_tokens=16", "block_tokens=32"},
    {[](Hello& h) {
       h.layout.shard_heads = {1, 1};
     },
     "'1'", "'2'"},
    {[](Hello& h) { h.protocol_min = 2, h.protocol_max = 4; }, "5..5", "2..4"},
};

TEST(Pair, WhatCannotBeReadInAGpuIsRefusedWithBothValues) {
  for (const Unfit& unfit : kUnfitForGpus) {
    Hello theirs = on_gpu(2);
    unfit.change(theirs);
    for (const bool reversed : {false, true}) {
      const auto pairing = reversed ? pair(theirs, on_gpu(1)) : pair(on_gpu(1), theirs);
      ASSERT_FALSE(pairing) << unfit.theirs;
      EXPECT_EQ(pairing.error().code, Errc::kUnsupported);
      EXPECT_THAT(pairing.error().message, HasSubstr(unfit.ours));
      EXPECT_THAT(pairing.error().message, HasSubstr(unfit.theirs));
    }
  }
}

TEST(Pair, NoHostIsNotOneHost) {
  Hello ours = on_gpu(1), theirs = on_gpu(2);
  ours.ranks[0].endpoint.host = theirs.ranks[0].endpoint.host = "";
  EXPECT_FALSE(pair(ours, theirs));
}

TEST(Pair, NotWithItself) { EXPECT_FALSE(pair(hello(1), hello(1))); }

}  // namespace
}  // namespace baton::kvtransfer
