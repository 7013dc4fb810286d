#include "tests/kvtransfer/real_worker.h"

#include <poll.h>

#include <algorithm>
#include <cstdlib>

#include "common/base/log.h"
#include "kvtransfer/range_digest.h"
#include "kvtransfer/ucx_transport.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {
namespace {

template <class T>
T need(result<T> r) {
  if (!r) {
    LOG_ERROR("{}", r.error().message);
    std::abort();
  }
  return std::move(*r);
}
void need(const status& s) {
  if (s) return;
  LOG_ERROR("{}", s.error().message);
  std::abort();
}

// Unless it has ended: that is no mistake, and the listener hears of it.
void need_while_open(const status& s) {
  if (s || s.error().code != Errc::kNotFound) need(s);
}

}  // namespace

HandoffKey test_key(uint64_t request, uint64_t generation) {
  return {RouterId{1}, RequestId{request}, Generation{generation}};
}

RealWorker::RealWorker(const RealWorkerOptions& options) : options_(options) {
  UcxOptions ucx;
  ucx.tls = options.tls;
  if (options.tls == "tcp") ucx.net_devices = "lo";
  HandoffConfig config;
  config.worker = WorkerId{options.id};
  config.model_key = "m";
  config.numerics = "n";
  config.layout = options.layout;
  config.num_blocks = options.num_blocks;
  config.verify_digests = options.verify_digests;
  config.read_bytes = options.read_bytes;
  config.protocol_max = options.protocol_max;
  config.lease = options.lease;
  config.renew_every = options.lease / 5;
  config.early_credit_ttl = 2 * options.lease;
  config.heartbeat_every = options.peer_timeout / 10;
  config.peer_timeout = options.peer_timeout;
  driver_ = need(HandoffDriver::create(config, need(make_ucx_transport(ucx)), *this, nullptr));
}

bool RealWorker::run_until(const std::function<bool()>& done, Duration limit, int extra_fd,
                           const std::function<void()>& on_extra) {
  const TimePoint end = Clock::now() + limit;
  while (true) {
    const bool more = driver_->poll(Clock::now());
    if (done()) return true;
    const TimePoint now = Clock::now();
    if (now >= end) return false;
    Duration wait = std::min(driver_->next_deadline(), end) - now;
    if (more || !need(driver_->arm())) wait = {};
    ::pollfd fds[2] = {{driver_->event_fd(), POLLIN, 0}, {extra_fd, POLLIN, 0}};
    const auto ms = std::chrono::ceil<milliseconds>(std::max(wait, Duration::zero())).count();
    ::poll(fds, extra_fd >= 0 ? 2 : 1, static_cast<int>(ms));
    if (extra_fd >= 0 && fds[1].revents != 0) on_extra();
  }
}

std::vector<BlockId> RealWorker::blocks(uint32_t first_block, uint32_t tokens) const {
  std::vector<BlockId> ids;
  for (uint32_t i = 0; i < options_.layout.blocks_for(tokens); ++i)
    ids.emplace_back(first_block + i);
  return ids;
}

void RealWorker::begin(const HandoffKey& key, WorkerId sink, uint32_t tokens, Duration deadline) {
  const TimePoint now = Clock::now();
  need(driver_->begin({key, sink, tokens, kTestTokenHash, now + deadline}, now));
}

void RealWorker::compute_layers(const HandoffKey& key, uint32_t layer_begin, uint32_t layer_end,
                                uint32_t first_block, uint32_t tokens, uint64_t seed) {
  const std::vector<BlockId> ids = blocks(first_block, tokens);
  const uint32_t block_tokens = options_.layout.block_tokens;
  std::vector<uint64_t> digests;
  for (uint32_t layer = layer_begin; layer < layer_end; ++layer) {
    for (uint32_t b = 0; b < ids.size(); ++b) {
      const KvRange cell{layer, layer + 1, b * block_tokens,
                         std::min((b + 1) * block_tokens, tokens)};
      write_kv(options_.layout, driver_->cache().data(), {ids, 0}, cell, seed);
      digests.push_back(digest_range(options_.layout, driver_->cache().data(), {ids, 0}, cell));
    }
  }
  need_while_open(
      driver_->layers_done(key, {layer_begin, layer_end, 0, ids, digests}, Clock::now()));
}

void RealWorker::finish(const HandoffKey& key) {
  const TokenId first = 5;
  need_while_open(driver_->finished(key, {&first, 1}, Clock::now()));
}

void RealWorker::hand_over(const HandoffKey& key, WorkerId sink, uint32_t first_block,
                           uint32_t tokens, uint64_t seed, Duration deadline) {
  begin(key, sink, tokens, deadline);
  for (uint32_t layer = 0; layer < options_.layout.num_layers(); ++layer) {
    compute_layers(key, layer, layer + 1, first_block, tokens, seed);
  }
  finish(key);
}

void RealWorker::reserve(const HandoffKey& key, WorkerId source, uint32_t first_block,
                         uint32_t tokens, Duration deadline) {
  const TimePoint now = Clock::now();
  need(driver_->reserve(
      {key, source, blocks(first_block, tokens), 0, tokens, kTestTokenHash, now + deadline}, now));
}

size_t RealWorker::wrong_vectors(uint32_t first_block, uint32_t tokens, uint64_t seed) const {
  const std::vector<BlockId> ids = blocks(first_block, tokens);
  return kvtransfer::wrong_vectors(options_.layout, driver_->cache().data(), {ids, 0},
                                   {0, options_.layout.num_layers(), 0, tokens}, seed);
}

}  // namespace baton::kvtransfer
