#include "kvtransfer/wire_read.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace baton::kvtransfer {

static_assert(sizeof(ReadRange) == 16, "the wire format, little-endian as all hosts we run on");

std::string encode_read_request(std::span<const GetOp> ops) {
  std::string bytes(ops.size() * sizeof(ReadRange), '\0');
  for (size_t i = 0; i < ops.size(); ++i) {
    const ReadRange range{ops[i].remote_offset, ops[i].bytes};
    std::memcpy(bytes.data() + i * sizeof range, &range, sizeof range);
  }
  return bytes;
}

result<std::vector<ReadRange>> decode_read_request(std::span<const std::byte> bytes,
                                                   uint64_t region_bytes) {
  const size_t count = bytes.size() / sizeof(ReadRange);
  if (count == 0 || count > kMaxReadRanges || bytes.size() % sizeof(ReadRange) != 0) {
    return error(Errc::kDataCorrupt, fmt::format("read request: {} bytes", bytes.size()));
  }
  std::vector<ReadRange> ranges(count);
  std::memcpy(ranges.data(), bytes.data(), bytes.size());
  uint64_t total = 0;
  for (const ReadRange& r : ranges) {
    if (r.bytes == 0 || r.bytes > kMaxReadBytes - total || r.offset > region_bytes ||
        r.bytes > region_bytes - r.offset) {
      return error(Errc::kDataCorrupt, fmt::format("read request: {} bytes at {} of {}", r.bytes,
                                                   r.offset, region_bytes));
    }
    total += r.bytes;
  }
  return ranges;
}

uint64_t total_bytes(std::span<const ReadRange> ranges) {
  uint64_t total = 0;
  for (const ReadRange& r : ranges) total += r.bytes;
  return total;
}
uint64_t total_bytes(std::span<const GetOp> ops) {
  uint64_t total = 0;
  for (const GetOp& op : ops) total += op.bytes;
  return total;
}

void gather(std::span<const ReadRange> ranges, const std::byte* region, uint64_t at,
            std::span<std::byte> out) {
  for (const ReadRange& r : ranges) {
    if (out.empty()) return;
    if (at >= r.bytes) {
      at -= r.bytes;
      continue;
    }
    const size_t n = std::min<uint64_t>(r.bytes - at, out.size());
    std::memcpy(out.data(), region + r.offset + at, n);
    out = out.subspan(n);
    at = 0;
  }
}

bool scatter(std::span<const GetOp> ops, uint64_t at, std::span<const std::byte> in) {
  const uint64_t total = total_bytes(ops);
  if (at > total || in.size() > total - at) return false;
  for (const GetOp& op : ops) {
    if (in.empty()) break;
    if (at >= op.bytes) {
      at -= op.bytes;
      continue;
    }
    const size_t n = std::min<uint64_t>(op.bytes - at, in.size());
    std::memcpy(op.local + at, in.data(), n);
    in = in.subspan(n);
    at = 0;
  }
  return true;
}

}  // namespace baton::kvtransfer
