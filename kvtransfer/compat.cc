#include "kvtransfer/compat.h"

#include <fmt/format.h>

#include <algorithm>

#include "kvtransfer/plan.h"

namespace baton::kvtransfer {
namespace {

template <class A, class B>
Error differs(std::string_view what, const A& ours, const B& theirs) {
  return error(Errc::kUnsupported, fmt::format("workers do not match: {} here is '{}', there '{}'",
                                               what, ours, theirs));
}

status check_layouts(const kvcache::KvLayout& ours, const kvcache::KvLayout& theirs) {
  if (ours.num_layers() != theirs.num_layers()) {
    return differs("number of layers", ours.num_layers(), theirs.num_layers());
  }
  if (ours.dtype != theirs.dtype) {
    return differs("cache dtype", baton::name(ours.dtype), baton::name(theirs.dtype));
  }
  if (ours.total_heads != theirs.total_heads) {
    return differs("number of KV heads", ours.total_heads, theirs.total_heads);
  }
  if (ours.vector_bytes() != theirs.vector_bytes()) {
    return differs("bytes of a KV vector", ours.vector_bytes(), theirs.vector_bytes());
  }
  if (ours.rope != theirs.rope) return differs("rope", ours.rope, theirs.rope);
  const auto [small, large] = std::minmax(ours.block_tokens, theirs.block_tokens);
  if (large % small != 0) {
    return differs("tokens in a block (one must divide the other)", ours.block_tokens,
                   theirs.block_tokens);
  }
  return {};
}

// Reading from or into several ranks needs a digest per range of heads: not in version 1.
status check_ranks(const Hello& ours, const Hello& theirs) {
  if (ours.ranks.size() != 1 || theirs.ranks.size() != 1) {
    return differs("number of ranks (only 1 is supported)", ours.ranks.size(), theirs.ranks.size());
  }
  const std::string &software = ours.ranks[0].endpoint.software,
                    &other = theirs.ranks[0].endpoint.software;
  if (software != other) return differs("the transport's version", software, other);
  const auto heads = [](const kvcache::KvLayout& l) {
    return fmt::format("{}..{}", l.head_begin, l.head_begin + l.num_heads());
  };
  if (heads(ours.layout) != heads(theirs.layout)) {
    return differs("range of KV heads", heads(ours.layout), heads(theirs.layout));
  }
  return {};
}

// A cache in a GPU's memory is read by those who have theirs in one, too, on the same host.
status check_memory(const Hello& ours, const Hello& theirs) {
  const Endpoint &a = ours.ranks[0].endpoint, &b = theirs.ranks[0].endpoint;
  const auto where = [](const Endpoint& e) { return e.device.gpu.empty() ? "host" : "device"; };
  if (a.device.gpu.empty() != b.device.gpu.empty()) {
    return differs("the memory that KV is read from", where(a), where(b));
  }
  if (a.device.gpu.empty()) return {};
  if (a.host.empty() || a.host != b.host) {
    return differs("the host, within which a GPU's memory is read,", a.host, b.host);
  }
  if (ours.layout.num_shards() > 1 || theirs.layout.num_shards() > 1) {
    return differs("number of shards in a GPU's memory (only 1 is supported)",
                   ours.layout.num_shards(), theirs.layout.num_shards());
  }
  if (!lie_alike(ours.layout, theirs.layout)) {
    return differs("layout of KV, which in a GPU's memory must be equal,", ours.layout.to_string(),
                   theirs.layout.to_string());
  }
  return {};
}

}  // namespace

result<Pairing> pair(const Hello& ours, const Hello& theirs) {
  BATON_CHECK_OK(ours.layout.validate());
  BATON_CHECK_OK(theirs.layout.validate());
  const uint32_t newest = std::min(ours.protocol_max, theirs.protocol_max);
  if (newest < std::max(ours.protocol_min, theirs.protocol_min)) {
    return differs("protocol", fmt::format("{}..{}", ours.protocol_min, ours.protocol_max),
                   fmt::format("{}..{}", theirs.protocol_min, theirs.protocol_max));
  }
  if (ours.worker == theirs.worker) {
    return error(Errc::kInvalidArgument,
                 fmt::format("worker {:x} cannot pair with itself", ours.worker.value));
  }
  if (ours.model_key != theirs.model_key) {
    return differs("model", ours.model_key, theirs.model_key);
  }
  if (ours.numerics != theirs.numerics) {
    return differs("numerics", ours.numerics, theirs.numerics);
  }
  BATON_CHECK_OK(check_layouts(ours.layout, theirs.layout));
  BATON_CHECK_OK(check_ranks(ours, theirs));
  BATON_CHECK_OK(check_memory(ours, theirs));
  return Pairing{newest, std::max(ours.layout.block_tokens, theirs.layout.block_tokens)};
}

}  // namespace baton::kvtransfer
