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

void gather(const Stream<ReadRange>& stream, const std::byte* region, uint64_t at,
            std::span<std::byte> out) {
  std::byte* to = out.data();
  stream.walk(at, out.size(), [&](const ReadRange& r, uint64_t piece, uint64_t within, uint64_t n) {
    std::memcpy(to, region + r.offset + piece * r.stride + within, n);
    to += n;
  });
}

bool scatter(const Stream<GetOp>& stream, uint64_t at, std::span<const std::byte> in) {
  if (at > stream.bytes() || in.size() > stream.bytes() - at) return false;
  const std::byte* from = in.data();
  stream.walk(at, in.size(), [&](const GetOp& op, uint64_t piece, uint64_t within, uint64_t n) {
    std::memcpy(op.local + piece * op.local_stride + within, from, n);
    from += n;
  });
  return true;
}

}  // namespace baton::kvtransfer
