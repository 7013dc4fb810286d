#include "tests/kvtransfer/sim_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::kvtransfer {
namespace {

constexpr std::byte kFree{0xdd};  // what a block that is nobody's is full of

}  // namespace

SimWorker::SimWorker(WorkerId id, const kvcache::KvLayout& layout, uint32_t num_blocks,
                     std::unique_ptr<Transport> transport, SimEvents events,
                     std::unique_ptr<DeviceReads> gpu, std::span<std::byte> gpu_memory)
    : id_(id), layout_(layout), num_blocks_(num_blocks), events_(std::move(events)) {
  HandoffConfig config;
  config.worker = id;
  config.model_key = "m";
  config.numerics = "n";
  config.layout = layout;
  config.num_blocks = num_blocks;
  config.lease = seconds(3);
  config.renew_every = milliseconds(500);
  config.peer_timeout = seconds(2);
  config.heartbeat_every = milliseconds(300);
  config.park_timeout = seconds(8);
  config.read_bytes = 3 * layout.layer_bytes();
  config.window_bytes = 20 * layout.layer_bytes();
  config.window_reads = 6;
  config.turns_window_reads = 6;
  config.device_read_bytes = 2 * layout.block_bytes();
  if (id.value % 4 == 0 && !gpu) config.protocol_max = kProtocolTurns - 1;
  driver_ = *HandoffDriver::create(config, std::move(transport), *this, nullptr, std::move(gpu));
  cache_ = gpu_memory.empty() ? driver_->cache() : gpu_memory;
  for (uint32_t b = num_blocks; b > 0; --b) free_.emplace_back(b - 1);
  std::ranges::fill(cache_, kFree);
}

bool SimWorker::take_blocks(uint32_t n, std::vector<BlockId>& out) {
  if (free_.size() < n) return false;
  for (uint32_t i = 0; i < n; ++i) {
    if (std::ranges::any_of(bytes_of(free_.back()), [](std::byte b) { return b != kFree; })) {
      events_.violation(
          fmt::format("worker {}: free block {} was written", id_.value, free_.back().value));
    }
    used_.insert(free_.back());
    out.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

std::span<std::byte> SimWorker::bytes_of(BlockId block) {
  return cache_.subspan(layout_.offset(block, 0), layout_.block_bytes());
}

void SimWorker::give_back(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    if (used_.erase(block) != 1)
      events_.violation(fmt::format("block {} freed twice", block.value));
    std::ranges::fill(bytes_of(block), kFree);
    free_.push_back(block);
  }
}

void SimWorker::violation(const HandoffKey& key, const std::string& what) {
  events_.violation(fmt::format("worker {} hand-off {}: {}", id_.value, to_string(key), what));
}

// --- source -------------------------------------------------------------------------------------

bool SimWorker::begin(const HandoffKey& key, const Request& request, WorkerId sink, TimePoint now) {
  Request r = request;
  if (!take_blocks(layout_.blocks_for(r.num_tokens), r.blocks)) return false;
  sources_[key] = r;
  const status begun = driver_->begin({key, sink, r.num_tokens, r.seed, r.deadline}, now);
  if (!begun) {
    violation(key, "begin: " + begun.error().message);
    end_source(key);
  }
  return true;
}

bool SimWorker::compute(const HandoffKey& key, uint32_t chunk_blocks, TimePoint now) {
  Request& r = sources_.at(key);
  const auto total = static_cast<uint32_t>(r.blocks.size());
  const uint32_t end = std::min(total, r.blocks_done + chunk_blocks);
  const uint32_t layer = r.layers_done++;
  const BlockRun run{r.blocks, 0};
  std::vector<uint64_t> digests;
  for (uint32_t b = r.blocks_done; b < end; ++b) {
    const KvRange cell{layer, layer + 1, b * layout_.block_tokens,
                       std::min((b + 1) * layout_.block_tokens, r.num_tokens)};
    write_kv(layout_, cache_.data(), run, cell, r.seed);
    digests.push_back(digest_range(layout_, cache_.data(), run, cell));
  }
  const std::vector<BlockId> blocks(r.blocks.begin() + r.blocks_done, r.blocks.begin() + end);
  const LayersDone done{layer, layer + 1, r.blocks_done, blocks, digests};
  if (r.layers_done == layout_.num_layers()) {
    r.layers_done = 0;
    r.blocks_done = end;
  }
  const bool last = r.blocks_done == total;
  if (const status s = driver_->layers_done(key, done, now); !s) {
    if (s.error().code != Errc::kNotFound) violation(key, s.error().message);
    return true;
  }
  if (!last) return false;
  const TokenId first = static_cast<TokenId>(r.seed % 1000);
  if (const status s = driver_->finished(key, {&first, 1}, now); !s) {
    if (s.error().code != Errc::kNotFound) violation(key, s.error().message);
  }
  return true;
}

void SimWorker::rename(const HandoffKey& from, const HandoffKey& to) {
  auto node = sources_.extract(from);
  if (node.empty()) return;
  node.key() = to;
  sources_.insert(std::move(node));
}

void SimWorker::damage(const HandoffKey& key, uint64_t random) {
  const Request& r = sources_.at(key);
  if (r.blocks_done == 0) return;
  const BlockId block = r.blocks[random % r.blocks_done];
  // The first vector of the block: certainly within the prompt.
  const uint64_t place =
      layout_.offset(block, static_cast<uint32_t>(random / 7) % layout_.num_layers());
  cache_[place + random % layout_.vector_bytes()] ^= std::byte{0x10};
}

void SimWorker::end_source(const HandoffKey& key) {
  auto node = sources_.extract(key);
  if (node.empty()) return violation(key, "ended twice as the source");
  give_back(node.mapped().blocks);
}

void SimWorker::source_released(const SourceReleased& released) {
  end_source(released.key);
  events_.source_released(released.key);
}

void SimWorker::source_failed(const SourceFailed& failed) {
  end_source(failed.key);
  events_.source_failed(failed.key, failed.error);
}

void SimWorker::source_sink_lost(const HandoffKey& key, const Error&, TimePoint) {
  events_.sink_lost(key);
}

// --- sink ---------------------------------------------------------------------------------------

bool SimWorker::reserve(const HandoffKey& key, const Request& request, WorkerId source,
                        TimePoint now) {
  Request r = request;
  if (!take_blocks(layout_.blocks_for(r.num_tokens - r.first_token), r.blocks)) return false;
  const status reserved = driver_->reserve(
      {key, source, r.blocks, r.first_token, r.num_tokens, r.seed, r.deadline}, now);
  if (!reserved) {
    if (reserved.error().code != Errc::kUnavailable) violation(key, reserved.error().message);
    give_back(r.blocks);
    return false;
  }
  sinks_[key] = std::move(r);
  return true;
}

void SimWorker::joined(const Joined& joined, TimePoint) {
  auto node = sinks_.extract(joined.key);
  if (node.empty()) return violation(joined.key, "joined what was not open");
  const Request& r = node.mapped();
  const KvRange all{0, layout_.num_layers(), r.first_token, r.num_tokens};
  const size_t wrong =
      wrong_vectors(layout_, cache_.data(), {r.blocks, r.first_token}, all, r.seed);
  if (wrong > 0) violation(joined.key, fmt::format("joined with {} wrong vectors", wrong));
  if (joined.first_tokens != std::vector<TokenId>{static_cast<TokenId>(r.seed % 1000)}) {
    violation(joined.key, "joined with another first token");
  }
  give_back(r.blocks);  // decoded at once
  events_.joined(joined.key);
}

void SimWorker::sink_failed(const HandoffKey& key, const Error& error) {
  auto node = sinks_.extract(key);
  if (node.empty()) return violation(key, "failed what was not open");
  quarantined_.insert(std::move(node));
  events_.sink_failed(key, error);
}

void SimWorker::sink_released(const HandoffKey& key, std::span<const BlockId> blocks) {
  auto node = quarantined_.extract(key);
  if (node.empty()) return violation(key, "released what had not failed");
  if (!std::ranges::equal(blocks, node.mapped().blocks)) violation(key, "released other blocks");
  // A write that still comes is seen when the block is taken again.
  give_back(blocks);
}

}  // namespace baton::kvtransfer
