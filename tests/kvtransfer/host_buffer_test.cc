#include "kvtransfer/host_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace baton::kvtransfer {
namespace {

constexpr size_t kMiB = 1u << 20;

TEST(HostBuffer, IsZeroedAndAligned) {
  const result<HostBuffer> buffer = allocate_host_buffer(10000, Sharing::kNone);
  ASSERT_TRUE(buffer) << buffer.error().message;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->get()) % 4096, 0u);
  EXPECT_TRUE(std::all_of(buffer->get(), buffer->get() + 10000,
                          [](std::byte b) { return b == std::byte{}; }));
}

TEST(HostBuffer, WhatNoSystemHasIsAnError) {
  const result<HostBuffer> buffer = allocate_host_buffer(SIZE_MAX, Sharing::kNone);
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code, Errc::kResourceExhausted);
}

TEST(ZeroFill, StopsWhereTheRestHasNoRoomAnyMore) {
  std::vector<std::byte> memory(200 * kMiB, std::byte{1});
  std::vector<uint64_t> asked;
  const status filled = zero_fill(memory, [&](uint64_t bytes) -> status {
    asked.push_back(bytes);
    if (asked.size() < 2) return {};
    return error(Errc::kResourceExhausted, "somebody else took it");
  });
  ASSERT_FALSE(filled);
  EXPECT_EQ(filled.error().message, "somebody else took it");
  EXPECT_EQ(asked, (std::vector<uint64_t>{200 * kMiB, 136 * kMiB}));
  EXPECT_EQ(memory[64 * kMiB - 1], std::byte{});
  EXPECT_EQ(memory[64 * kMiB], std::byte{1});
}

TEST(ZeroFill, FillsAllWhereThereIsRoom) {
  std::vector<std::byte> memory(70 * kMiB, std::byte{1});
  EXPECT_TRUE(zero_fill(memory, [](uint64_t) { return status(); }));
  EXPECT_EQ(std::count(memory.begin(), memory.end(), std::byte{1}), 0);
}

}  // namespace
}  // namespace baton::kvtransfer
