#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "kvtransfer/transport.h"

// Reading where the network cannot: the reader asks, the owner answers with the bytes. Pure; the
// transport carries the messages. Unlike UCX's own emulation of a get, the owner checks every range
// and survives a reader that dies while it is answered.
namespace baton::kvtransfer {

inline constexpr size_t kMaxReadRanges = 16384;        // in one request
inline constexpr uint64_t kMaxReadBytes = 1ull << 30;  // in one request
// Reads that are answered in turns and not at their end, of one reader; and their ranges in all.
inline constexpr size_t kMaxOpenReads = 256;
inline constexpr size_t kMaxOpenRanges = 2 * kMaxReadRanges;

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

// The pieces of ranges, one after the other, are a stream of bytes. Range: ReadRange or GetOp.
template <class Range>
class Stream {
 public:
  Stream() = default;
  explicit Stream(std::vector<Range> ranges) : ranges_(std::move(ranges)) {
    ends_.reserve(ranges_.size());
    for (const Range& r : ranges_) ends_.push_back(bytes() + r.total_bytes());
  }
  const std::vector<Range>& ranges() const { return ranges_; }
  uint64_t bytes() const { return ends_.empty() ? 0 : ends_.back(); }

  // Calls each(range, piece, within, n) for what lies without gaps: n bytes of that piece of the
  // range, from its byte `within` on; in order, for all of [at, at + count) of the stream, which is
  // at least that long.
  template <class Each>
  void walk(uint64_t at, uint64_t count, Each each) const {
    size_t i = std::ranges::upper_bound(ends_, at) - ends_.begin();
    for (; count > 0; ++i) {
      const Range& r = ranges_[i];
      uint64_t in_range = at - (ends_[i] - r.total_bytes());
      while (count > 0 && at < ends_[i]) {
        const uint64_t within = in_range % r.bytes;
        const uint64_t n = std::min(r.bytes - within, count);
        each(r, in_range / r.bytes, within, n);
        in_range += n;
        at += n;
        count -= n;
      }
    }
  }

 private:
  std::vector<Range> ranges_;
  std::vector<uint64_t> ends_;  // of each range, in the stream
};

std::string encode_read_request(std::span<const GetOp> ops);
// Ranges, piece by piece, lie within `region_bytes` and in all within the bounds above.
// kDataCorrupt.
result<std::vector<ReadRange>> decode_read_request(std::span<const std::byte> bytes,
                                                   uint64_t region_bytes);

// Copies [at, at + out.size()) of the stream out of `region`; the stream is at least that long.
void gather(const Stream<ReadRange>& stream, const std::byte* region, uint64_t at,
            std::span<std::byte> out);
// Copies `in`, which is [at, at + in.size()) of the stream, to where the reader wants it. False:
// the stream is shorter, and nothing was copied.
bool scatter(const Stream<GetOp>& stream, uint64_t at, std::span<const std::byte> in);

}  // namespace baton::kvtransfer
