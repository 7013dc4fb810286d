#include "kvtransfer/wire_read.h"

#include <gtest/gtest.h>

#include <random>

namespace baton::kvtransfer {
namespace {

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

TEST(WireRead, RequestRoundTrip) {
  std::byte local[64];
  const GetOp ops[] = {
      {100, local, 10}, {0, local + 10, 14, 1, 7, 7}, {3, local + 24, 4, 5, 20, 8}};
  const auto ranges = decode_read_request(bytes_of(encode_read_request(ops)), 110);
  ASSERT_TRUE(ranges);
  EXPECT_EQ(*ranges, (std::vector<ReadRange>{{100, 10}, {0, 14}, {3, 4, 5, 20}}));
  EXPECT_EQ(Stream<ReadRange>(*ranges).bytes(), 44u);
  EXPECT_EQ(Stream<GetOp>({ops, ops + 3}).bytes(), 44u);
}

// As workers since protocol 2 send it: four numbers of eight bytes a descriptor, the least byte
// first; a stride where there is one.
TEST(WireRead, TheFormOfARequest) {
  const GetOp ops[] = {{0x0102030405060708, nullptr, 0x10, 1, 77, 77},
                       {0x20, nullptr, 0x30, 0x40, 0x50, 99}};
  EXPECT_EQ(encode_read_request(ops), std::string("\x08\x07\x06\x05\x04\x03\x02\x01"
                                                  "\x10\0\0\0\0\0\0\0"
                                                  "\x01\0\0\0\0\0\0\0"
                                                  "\0\0\0\0\0\0\0\0"
                                                  "\x20\0\0\0\0\0\0\0"
                                                  "\x30\0\0\0\0\0\0\0"
                                                  "\x40\0\0\0\0\0\0\0"
                                                  "\x50\0\0\0\0\0\0\0",
                                                  64));
}

TEST(WireRead, ImpossibleRequestsAreRefused) {
  const auto refused = [](std::vector<GetOp> ops, uint64_t region = 1000) {
    return !decode_read_request(bytes_of(encode_read_request(ops)), region);
  };
  EXPECT_FALSE(refused({{0, nullptr, 1000}}));
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused({{0, nullptr, 0}}));
  EXPECT_TRUE(refused({{0, nullptr, 1001}}));
  EXPECT_TRUE(refused({{1000, nullptr, 1}}));
  EXPECT_TRUE(refused({{UINT64_MAX, nullptr, 2}}));
  EXPECT_TRUE(refused({{1, nullptr, UINT64_MAX}}));
  EXPECT_TRUE(refused(std::vector<GetOp>(kMaxReadRanges + 1, GetOp{0, nullptr, 1})));
  // Each range is there, all of them are too much for one request.
  EXPECT_TRUE(refused(std::vector<GetOp>(5, GetOp{0, nullptr, kMaxReadBytes / 4}), UINT64_MAX));
  EXPECT_FALSE(decode_read_request(bytes_of(std::string(31, 'x')), 1000));
  EXPECT_FALSE(decode_read_request(bytes_of(std::string(33, 'x')), UINT64_MAX));
}

TEST(WireRead, ImpossibleStridesAreRefused) {
  const auto refused = [](ReadRange range, uint64_t region = 1000) {
    const std::string bytes(reinterpret_cast<const char*>(&range), sizeof range);
    return !decode_read_request(bytes_of(bytes), region);
  };
  EXPECT_FALSE(refused({0, 10, 100, 10}));  // ends where the region does
  EXPECT_FALSE(refused({9, 1, 100, 10}));
  EXPECT_TRUE(refused({10, 1, 100, 10}));
  EXPECT_TRUE(refused({0, 10, 101, 10}));
  EXPECT_TRUE(refused({0, 11, 90, 10}));  // pieces that overlap
  EXPECT_TRUE(refused({0, 10, 2, 0}));
  EXPECT_TRUE(refused({0, 10, 0, 10}));
  EXPECT_TRUE(refused({0, 10, 2, 991}));
  EXPECT_FALSE(refused({0, 10, 2, 990}));
  EXPECT_FALSE(refused({0, 10, 1, UINT64_MAX}));
  // What would wrap around to something small.
  EXPECT_TRUE(refused({0, 1, UINT64_MAX, 1}));
  EXPECT_TRUE(refused({0, 1, 2, UINT64_MAX}));
  EXPECT_TRUE(refused({10, 8, (1ull << 32) + 1, 1ull << 32}));
  EXPECT_TRUE(refused({0, 1ull << 33, 1ull << 31, 1ull << 33}, UINT64_MAX));
  // There, but too much for one request.
  EXPECT_FALSE(refused({0, kMaxReadBytes / 4, 4, kMaxReadBytes}, UINT64_MAX));
  EXPECT_TRUE(refused({0, kMaxReadBytes / 4, 5, kMaxReadBytes}, UINT64_MAX));
  EXPECT_TRUE(refused({0, 1, kMaxReadBytes + 1, 1}, UINT64_MAX));
}

// Any ranges, sent in any pieces, arrive where they belong.
TEST(WireRead, GatherThenScatterCopies) {
  std::mt19937 random(1);
  std::vector<std::byte> remote(5000), local(5000);
  for (std::byte& b : remote) b = static_cast<std::byte>(random());
  for (int round = 0; round < 500; ++round) {
    std::fill(local.begin(), local.end(), std::byte{0});
    std::vector<GetOp> ops;
    uint64_t at = 0;
    while (at < 4000 && ops.size() < 1 + random() % 30) {
      GetOp op{random() % 4000, local.data() + at, 1 + random() % 900, 1 + random() % 4};
      op.remote_stride = op.bytes + random() % 50;
      op.local_stride = op.bytes + random() % 50;
      const uint64_t there = op.remote_offset + (op.count - 1) * op.remote_stride + op.bytes;
      const uint64_t here = at + (op.count - 1) * op.local_stride + op.bytes;
      if (there > 5000 || here > 5000) continue;
      ops.push_back(op);
      at = here;
    }
    if (ops.empty()) continue;
    const auto ranges = decode_read_request(bytes_of(encode_read_request(ops)), 5000);
    ASSERT_TRUE(ranges);
    const Stream<ReadRange> from(*ranges);
    const Stream<GetOp> to(ops);
    const uint64_t total = from.bytes();
    ASSERT_EQ(total, to.bytes());
    const uint64_t piece = 1 + random() % 700;
    for (uint64_t p = 0; p < total; p += piece) {
      std::vector<std::byte> wire(std::min(piece, total - p));
      gather(from, remote.data(), p, wire);
      ASSERT_TRUE(scatter(to, p, wire));
    }
    std::vector<std::byte> expected(5000);
    for (GetOp op : ops) {
      op.local = expected.data() + (op.local - local.data());
      copy_pieces(op, remote.data());
    }
    ASSERT_EQ(local, expected);
  }
}

TEST(WireRead, NothingIsCopiedBeyondTheStream) {
  std::vector<std::byte> local(10);
  const Stream<GetOp> ops({{0, local.data(), 10}});
  const std::vector<std::byte> in(4, std::byte{7});
  EXPECT_FALSE(scatter(ops, 7, in));
  EXPECT_FALSE(scatter(ops, UINT64_MAX - 1, in));
  EXPECT_EQ(local, std::vector<std::byte>(10));
  EXPECT_TRUE(scatter(ops, 6, in));
}

}  // namespace
}  // namespace baton::kvtransfer
