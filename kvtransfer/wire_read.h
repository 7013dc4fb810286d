#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "kvtransfer/transport.h"

// Reading where the network cannot: the reader asks, the owner answers with the bytes. Pure; the
// transport carries the messages. Unlike UCX's own emulation of a get, the owner checks every range
// and survives a reader that dies while it is answered.
namespace baton::kvtransfer {

inline constexpr size_t kMaxReadRanges = 16384;        // in one request
inline constexpr uint64_t kMaxReadBytes = 1ull << 30;  // in one request

// `count` pieces of `bytes`, the first at `offset` of the owner's region and each next one `stride`
// behind the one before.
struct ReadRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t count = 1;
  uint64_t stride = 0;

  uint64_t total_bytes() const { return count * bytes; }
  friend bool operator==(const ReadRange&, const ReadRange&) = default;
};

std::string encode_read_request(std::span<const GetOp> ops);
// Ranges, piece by piece, lie within `region_bytes` and in all within the bounds above.
// kDataCorrupt.
result<std::vector<ReadRange>> decode_read_request(std::span<const std::byte> bytes,
                                                   uint64_t region_bytes);

uint64_t total_bytes(std::span<const ReadRange> ranges);
uint64_t total_bytes(std::span<const GetOp> ops);

// The pieces of the ranges, one after the other, are a stream. Copies [at, at + out.size()) of it
// out of `region`; the stream is at least that long.
void gather(std::span<const ReadRange> ranges, const std::byte* region, uint64_t at,
            std::span<std::byte> out);
// Copies `in`, which is [at, at + in.size()) of the stream, to where the reader wants it. False:
// the stream is shorter, and nothing was copied.
bool scatter(std::span<const GetOp> ops, uint64_t at, std::span<const std::byte> in);

}  // namespace baton::kvtransfer
