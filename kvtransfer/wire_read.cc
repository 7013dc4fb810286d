#include "kvtransfer/wire_read.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace baton::kvtransfer {

static_assert(sizeof(ReadRange) == 32, "the wire format, little-endian as all hosts we run on");

std::string encode_read_request(std::span<const GetOp> ops) {
  std::string bytes(ops.size() * sizeof(ReadRange), '\0');
  for (size_t i = 0; i < ops.size(); ++i) {
    const GetOp& op = ops[i];
    const ReadRange range{op.remote_offset, op.bytes, op.count,
                          op.count > 1 ? op.remote_stride : 0};
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
    if (!lies_within(r.offset, r.bytes, r.count, r.stride, region_bytes) ||
        r.count > (kMaxReadBytes - total) / r.bytes) {
      return error(Errc::kDataCorrupt,
                   fmt::format("read request: {} pieces of {} bytes, {} apart, at {} of {}",
                               r.count, r.bytes, r.stride, r.offset, region_bytes));
    }
    total += r.total_bytes();
  }
  return ranges;
}

uint64_t total_bytes(std::span<const ReadRange> ranges) {
  uint64_t total = 0;
  for (const ReadRange& r : ranges) total += r.total_bytes();
  return total;
}
uint64_t total_bytes(std::span<const GetOp> ops) {
  uint64_t total = 0;
  for (const GetOp& op : ops) total += op.count * op.bytes;
  return total;
}

void gather(std::span<const ReadRange> ranges, const std::byte* region, uint64_t at,
            std::span<std::byte> out) {
  for (const ReadRange& r : ranges) {
    const uint64_t end = r.total_bytes();
    while (at < end && !out.empty()) {
      const uint64_t within = at % r.bytes;
      const size_t n = std::min<uint64_t>(r.bytes - within, out.size());
      std::memcpy(out.data(), region + r.offset + at / r.bytes * r.stride + within, n);
      out = out.subspan(n);
      at += n;
    }
    if (out.empty()) return;
    at -= end;
  }
}

bool scatter(std::span<const GetOp> ops, uint64_t at, std::span<const std::byte> in) {
  const uint64_t total = total_bytes(ops);
  if (at > total || in.size() > total - at) return false;
  for (const GetOp& op : ops) {
    const uint64_t end = op.count * op.bytes;
    while (at < end && !in.empty()) {
      const uint64_t within = at % op.bytes;
      const size_t n = std::min<uint64_t>(op.bytes - within, in.size());
      std::memcpy(op.local + at / op.bytes * op.local_stride + within, in.data(), n);
      in = in.subspan(n);
      at += n;
    }
    if (in.empty()) break;
    at -= end;
  }
  return true;
}

}  // namespace baton::kvtransfer
