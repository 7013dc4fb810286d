// That the fake GPU is as strict as it claims to be.
#include "tests/fakes/fake_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <numeric>
#include <vector>

namespace baton::device {
namespace {

using testing::ElementsAre;

class FakeGpuTest : public testing::Test {
 protected:
  FakeGpuTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  // Ids [count] on the device, from 0 on.
  Buffer ids(size_t count) {
    std::vector<TokenId> values(count);
    std::iota(values.begin(), values.end(), 0);
    Buffer buffer = gpu.allocate(count * sizeof(TokenId)).value();
    gpu.copy(*stream, buffer.data(), values.data(), buffer.bytes());
    stream->synchronize();
    return buffer;
  }
  static std::span<TokenId> span(const Buffer& b) {
    return {reinterpret_cast<TokenId*>(b.data()), b.bytes() / sizeof(TokenId)};
  }
  std::vector<TokenId> read(const Buffer& b) {
    std::vector<TokenId> values(b.bytes() / sizeof(TokenId));
    gpu.copy(*stream, values.data(), b.data(), b.bytes());
    stream->synchronize();
    return values;
  }

  FakeGpu gpu;
  const ops::Ops ops = ops::fake_gpu_ops();
  std::unique_ptr<Stream> stream = gpu.make_stream();
};

TEST_F(FakeGpuTest, TheHostCannotFollowItsAddresses) {
  const Buffer buffer = ids(4);
  EXPECT_THAT(read(buffer), ElementsAre(0, 1, 2, 3));
  EXPECT_DEATH(static_cast<volatile std::byte*>(buffer.data())[0], "");
}

TEST_F(FakeGpuTest, AnOperationTouchesOnlyWhatIsTheDevices) {
  const Buffer drawn = ids(2), few = ids(3);
  const auto* tokens = span(drawn).data();
  std::array<TokenId, 3> pageable = {};
  EXPECT_DEATH(ops.resolve_drawn(*stream, pageable, tokens), "may not touch");
  EXPECT_DEATH(ops.resolve_drawn(*stream, {span(few).data(), 4}, tokens), "16 bytes at 0 of 12");
  {
    const Buffer locked = gpu.lock_host(pageable.data(), sizeof(pageable)).value();
    pageable = {-2, 7, -1};
    ops.resolve_drawn(*stream, pageable, tokens);
    stream->synchronize();
    EXPECT_THAT(pageable, ElementsAre(1, 7, 0));
  }
  EXPECT_DEATH(ops.resolve_drawn(*stream, pageable, tokens), "may not touch");
}

TEST_F(FakeGpuTest, FreedMemoryIsGoneForGood) {
  const Buffer drawn = ids(1);
  Buffer freed = ids(8);
  const std::span<TokenId> was = span(freed);
  freed = Buffer();
  const Buffer next = ids(8);
  EXPECT_NE(span(next).data(), was.data());
  std::array<TokenId, 8> to;
  EXPECT_DEATH(ops.resolve_drawn(*stream, was, span(drawn).data()), "freed");
  EXPECT_DEATH(gpu.copy(*stream, to.data(), was.data(), sizeof(to)), "freed");
}

TEST_F(FakeGpuTest, RunsBehindTheHostInOrder) {
  gpu.set_jitter(std::chrono::microseconds(200));
  const Buffer a = ids(1), b = ids(1);
  const auto other = gpu.make_stream();
  const auto event = stream->make_event();
  event->wait();  // of nothing
  EXPECT_TRUE(event->done());
  for (int i = 0; i < 20; ++i) {
    const std::vector<TokenId> value = {i};
    gpu.hold();
    gpu.copy(*stream, a.data(), value.data(), a.bytes());
    stream->record(*event);
    other->wait(*event);
    gpu.copy(*other, b.data(), a.data(), a.bytes());
    EXPECT_FALSE(event->done());
    gpu.let_go();
    event->wait();
    other->synchronize();
    EXPECT_THAT(read(b), ElementsAre(i));
  }
}

TEST_F(FakeGpuTest, ARecordingRunsWhenItIsLaunched) {
  const Buffer from = ids(2), to = ids(2);
  const auto* tokens = span(from).data();
  stream->begin_capture();
  gpu.copy(*stream, to.data(), from.data(), to.bytes());
  ops.resolve_drawn(*stream, span(to), tokens);
  const auto graph = stream->end_capture();
  const std::vector<TokenId> marked = {5, -1};
  gpu.copy(*stream, from.data(), marked.data(), from.bytes());
  EXPECT_THAT(read(to), ElementsAre(0, 1));
  for (int i = 0; i < 2; ++i) {
    stream->launch(*graph);
    EXPECT_THAT(read(to), ElementsAre(5, 5));
  }
  EXPECT_EQ(gpu.counts().captures, 1u);
  EXPECT_EQ(gpu.counts().launches, 2u);
}

TEST_F(FakeGpuTest, ARecordingRefusesWhatNoGpuCanRecord) {
  const Buffer buffer = ids(2);
  std::array<TokenId, 2> host = {};
  stream->begin_capture();
  EXPECT_DEATH((void)gpu.allocate(8), "an allocation while a stream records");
  EXPECT_DEATH(stream->synchronize(), "synchronize");
  EXPECT_DEATH(gpu.copy(*stream, buffer.data(), host.data(), sizeof(host)), "may not touch");
  EXPECT_DEATH(ops.sample(*stream, {}, {}, {}), "sample is recorded");
  stream->end_capture();
}

}  // namespace
}  // namespace baton::device
