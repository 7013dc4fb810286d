#include <fmt/format.h>
#include <xxhash.h>

#include <utility>

#include "common/proto/handoff.pb.h"
#include "kvtransfer/codec.h"

namespace baton::kvtransfer {
namespace {

Error corrupt(std::string_view field, std::string_view why) {
  return error(Errc::kDataCorrupt, fmt::format("hello: {}: {}", field, why));
}

status check_text(std::string_view field, const std::string& text, size_t max) {
  if (text.size() <= max) return {};
  return corrupt(field, fmt::format("{} bytes, at most {}", text.size(), max));
}

void fill(proto::KvLayoutInfo& out, const kvcache::KvLayout& layout) {
  for (const kvcache::KvGroup& group : layout.groups) {
    proto::KvGroupInfo& out_group = *out.add_groups();
    out_group.set_layer_begin(group.layer_begin);
    out_group.set_layer_end(group.layer_end);
    out_group.set_kind(static_cast<uint32_t>(group.kind));
    out_group.set_sharded(group.sharded);
    for (const kvcache::KvPlane& plane : group.planes) {
      proto::KvPlaneInfo& out_plane = *out_group.add_planes();
      out_plane.set_name(plane.name);
      out_plane.set_heads(plane.heads);
      out_plane.set_vector_bytes(plane.vector_bytes);
    }
  }
  out.set_dtype(static_cast<uint32_t>(layout.dtype));
  out.set_block_tokens(layout.block_tokens);
  out.set_head_begin(layout.head_begin);
  out.set_total_heads(layout.total_heads);
  out.set_rope(layout.rope);
  for (const uint32_t heads : layout.shard_heads) out.add_shard_heads(heads);
}

// XXH3-64 over what is put in, each text behind its length: what a transport is given must be what
// its owner made.
class Digest {
 public:
  Digest& put(uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) bytes_ += static_cast<char>(number >> shift);
    return *this;
  }
  Digest& put(const std::string& text) {
    put(text.size());
    bytes_ += text;
    return *this;
  }
  uint64_t get() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

 private:
  std::string bytes_;
};

bool is_on_device(const Rank& rank) { return !rank.endpoint.device.gpu.empty(); }

// Of the host's memory; those that a GPU has are told beside it.
uint32_t region_blocks(const Rank& rank) { return is_on_device(rank) ? 0 : rank.num_blocks; }

// All that a rank says, but for its GPU's memory: what older workers know.
uint64_t digest_of(const Rank& rank) {
  const Endpoint& e = rank.endpoint;
  Digest digest;
  digest.put(e.address).put(e.host).put(e.region.key).put(e.software);
  digest.put(uint64_t{e.shared_memory}).put(static_cast<uint64_t>(e.pid)).put(e.region.base);
  digest.put(e.region.bytes).put(region_blocks(rank)).put(rank.head_begin);
  return digest.get();
}

uint64_t device_digest(const Rank& rank) {
  const DeviceRegion& device = rank.endpoint.device;
  return Digest().put(device.gpu).put(device.bytes).put(device.key).put(rank.num_blocks).get();
}

void fill(proto::DeviceMemoryInfo& out, const Rank& rank) {
  out.set_gpu(rank.endpoint.device.gpu);
  out.set_bytes(rank.endpoint.device.bytes);
  out.set_key(rank.endpoint.device.key);
  out.set_num_blocks(rank.num_blocks);
  out.set_digest(device_digest(rank));
}

void fill(proto::RankInfo& out, const Rank& rank) {
  out.set_head_begin(rank.head_begin);
  out.set_address(rank.endpoint.address);
  out.set_host(rank.endpoint.host);
  out.set_shared_memory(rank.endpoint.shared_memory);
  out.set_pid(rank.endpoint.pid);
  proto::MemoryRegionInfo& region = *out.add_regions();
  region.set_base(rank.endpoint.region.base);
  region.set_bytes(rank.endpoint.region.bytes);
  region.set_key(rank.endpoint.region.key);
  region.set_num_blocks(region_blocks(rank));
  out.set_software(rank.endpoint.software);
  out.set_digest(digest_of(rank));
  if (is_on_device(rank)) fill(*out.mutable_device(), rank);
}

result<kvcache::KvGroup> parse(const proto::KvGroupInfo& in) {
  if (in.kind() > static_cast<uint32_t>(kvcache::GroupKind::kState)) {
    return corrupt("layout.groups.kind", fmt::format("{} is unknown", in.kind()));
  }
  if (in.planes_size() > 16) return corrupt("layout.groups.planes", "too many");
  kvcache::KvGroup group{
      in.layer_begin(), in.layer_end(), {}, kvcache::GroupKind(in.kind()), in.sharded()};
  for (const proto::KvPlaneInfo& plane : in.planes()) {
    BATON_CHECK_OK(check_text("layout.groups.planes.name", plane.name(), 64));
    group.planes.push_back({plane.name(), plane.heads(), plane.vector_bytes()});
  }
  return group;
}

result<kvcache::KvLayout> parse(const proto::KvLayoutInfo& in) {
  kvcache::KvLayout layout;
  if (in.groups_size() > 64) return corrupt("layout.groups", "too many");
  for (const proto::KvGroupInfo& in_group : in.groups()) {
    BATON_TRY(kvcache::KvGroup group, parse(in_group));
    layout.groups.push_back(std::move(group));
  }
  if (in.dtype() > static_cast<uint32_t>(DType::kI32)) {
    return corrupt("layout.dtype", fmt::format("{} is unknown", in.dtype()));
  }
  BATON_CHECK_OK(check_text("layout.rope", in.rope(), kMaxTextBytes));
  layout.dtype = DType(in.dtype());
  layout.block_tokens = in.block_tokens();
  layout.head_begin = in.head_begin();
  layout.total_heads = in.total_heads();
  layout.rope = in.rope();
  if (in.shard_heads_size() > static_cast<int>(kMaxRanks)) {
    return corrupt("layout.shard_heads", "too many");
  }
  layout.shard_heads.assign(in.shard_heads().begin(), in.shard_heads().end());
  if (const status valid = layout.validate(); !valid) {
    return error(valid.error().code, "hello: " + valid.error().message);
  }
  if (layout.num_layers() > kMaxDigests) return corrupt("layout", "too many layers");
  return layout;
}

// Whether `bytes` hold so many blocks of the layout.
status check_blocks(std::string_view field, uint64_t bytes, uint32_t num_blocks,
                    const kvcache::KvLayout& layout) {
  if (num_blocks <= bytes / layout.block_bytes()) return {};
  return corrupt(field, fmt::format("{} do not hold {} blocks of {}", bytes, num_blocks,
                                    layout.block_bytes()));
}

status parse_device(const proto::DeviceMemoryInfo& in, const kvcache::KvLayout& layout,
                    Rank& rank) {
  if (in.gpu().empty()) return corrupt("ranks.device.gpu", "missing");
  BATON_CHECK_OK(check_text("ranks.device.gpu", in.gpu(), kMaxTextBytes));
  BATON_CHECK_OK(check_text("ranks.device.key", in.key(), kMaxBlobBytes));
  BATON_CHECK_OK(check_blocks("ranks.device.bytes", in.bytes(), in.num_blocks(), layout));
  if (rank.endpoint.region.bytes != 0) {
    return corrupt("ranks.device", "a cache in two memories");
  }
  rank.endpoint.device = {in.gpu(), in.bytes(), in.key()};
  rank.num_blocks = in.num_blocks();
  if (device_digest(rank) != in.digest()) {
    return corrupt("ranks.device.digest", "the memory's key is not as it was sent");
  }
  return {};
}

result<Rank> parse(const proto::RankInfo& in, const kvcache::KvLayout& layout) {
  BATON_CHECK_OK(check_text("ranks.address", in.address(), kMaxBlobBytes));
  BATON_CHECK_OK(check_text("ranks.host", in.host(), kMaxTextBytes));
  if (in.regions_size() != 1) {
    return error(Errc::kUnsupported, fmt::format("hello: ranks.regions: {} memory regions; exactly "
                                                 "one is supported",
                                                 in.regions_size()));
  }
  const proto::MemoryRegionInfo& region = in.regions(0);
  BATON_CHECK_OK(check_text("ranks.regions.key", region.key(), kMaxBlobBytes));
  BATON_CHECK_OK(check_blocks("ranks.regions.bytes", region.bytes(), region.num_blocks(), layout));
  if (region.base() > UINT64_MAX - region.bytes()) {
    return corrupt("ranks.regions.base", "the region wraps around");
  }
  BATON_CHECK_OK(check_text("ranks.software", in.software(), kMaxTextBytes));
  Rank rank{in.head_begin(),
            region.num_blocks(),
            {in.address(),
             in.host(),
             in.shared_memory(),
             in.pid(),
             {region.base(), region.bytes(), region.key()},
             in.software(),
             {}}};
  if (digest_of(rank) != in.digest()) {
    return corrupt("ranks.digest", "address and memory key are not as they were sent");
  }
  if (in.has_device()) BATON_CHECK_OK(parse_device(in.device(), layout, rank));
  return rank;
}

}  // namespace

std::string encode(const Hello& hello) {
  proto::Hello out;
  out.set_protocol_min(hello.protocol_min);
  out.set_protocol_max(hello.protocol_max);
  out.set_worker(hello.worker.value);
  fill(*out.mutable_layout(), hello.layout);
  out.set_model_key(hello.model_key);
  out.set_numerics(hello.numerics);
  for (const Rank& rank : hello.ranks) fill(*out.add_ranks(), rank);
  return out.SerializeAsString();
}

result<Hello> decode_hello(std::string_view bytes) {
  proto::Hello in;
  if (bytes.size() > kMaxRanks * 4 * kMaxBlobBytes ||
      !in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return corrupt("body", "not a message");
  }
  if (in.protocol_min() == 0 || in.protocol_min() > in.protocol_max()) {
    return corrupt("protocol", fmt::format("{}..{}", in.protocol_min(), in.protocol_max()));
  }
  if (in.worker() == 0) return corrupt("worker", "missing");
  BATON_CHECK_OK(check_text("model_key", in.model_key(), kMaxTextBytes));
  BATON_CHECK_OK(check_text("numerics", in.numerics(), kMaxTextBytes));
  BATON_TRY(kvcache::KvLayout layout, parse(in.layout()));
  if (in.ranks_size() < 1 || in.ranks_size() > static_cast<int>(kMaxRanks)) {
    return corrupt("ranks", fmt::format("{} of them", in.ranks_size()));
  }
  Hello hello{in.protocol_min(),
              in.protocol_max(),
              WorkerId{in.worker()},
              std::move(layout),
              in.model_key(),
              in.numerics(),
              {}};
  for (const proto::RankInfo& in_rank : in.ranks()) {
    BATON_TRY(Rank rank, parse(in_rank, hello.layout));
    hello.ranks.push_back(std::move(rank));
  }
  return hello;
}

}  // namespace baton::kvtransfer
