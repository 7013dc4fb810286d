#include "common/engine/kv_mirror.h"

#include <algorithm>
#include <cassert>

#include "common/model/model.h"

namespace baton::engine {

KvMirror::KvMirror(const kvcache::KvCache& cache, const kvcache::KvCache& mirror,
                   device::Device& device, const ops::Ops& ops)
    : cache_(cache), mirror_(mirror), ops_(ops), stream_(device.make_stream()) {}

result<std::unique_ptr<KvMirror>> KvMirror::create(const kvcache::KvCache& cache,
                                                   const kvcache::KvCache& mirror,
                                                   device::Device& device, const ops::Ops& ops,
                                                   uint32_t max_blocks, uint32_t max_steps) {
  assert(cache.layout().on_its_own() == mirror.layout().on_its_own() &&
         cache.num_blocks() == mirror.num_blocks());
  std::unique_ptr<KvMirror> made(new KvMirror(cache, mirror, device, ops));
  BATON_CHECK_OK(made->allocate(device, max_blocks, max_steps));
  return made;
}

status KvMirror::allocate(device::Device& device, uint32_t max_blocks, uint32_t max_steps) {
  if (!is_cache()) {
    BATON_TRY(locked_, device.lock_host(mirror_.memory().data(), mirror_.memory().size()));
  }
  const uint32_t layers = cache_.layout().num_layers();
  const size_t digests = size_t{layers} * max_blocks;
  const size_t step_bytes = digests * sizeof(uint64_t) + max_blocks * sizeof(ops::KvCopyBlock);
  const size_t arrivals = size_t{kArrivals} * cache_.num_blocks();
  BATON_TRY(memory_,
            device.allocate_host(max_steps * step_bytes + arrivals * sizeof(ops::KvCopyBlock)));
  std::byte* next = memory_.data();
  for (uint32_t i = 0; i < max_steps; ++i) {
    Step& s = steps_.emplace_back();
    s.digests = {reinterpret_cast<uint64_t*>(next), digests};
    next += digests * sizeof(uint64_t);
    s.blocks = {reinterpret_cast<ops::KvCopyBlock*>(next), max_blocks};
    next += max_blocks * sizeof(ops::KvCopyBlock);
    for (uint32_t l = 0; l < layers; ++l) {
      s.computed.push_back(stream_->make_event());
      s.copied.push_back(stream_->make_event());
    }
  }
  arrived_ = {reinterpret_cast<ops::KvCopyBlock*>(next), arrivals};
  for (uint32_t i = 0; i < kArrivals; ++i) brought_in_.push_back(stream_->make_event());
  return {};
}

void KvMirror::bring_in(device::Stream& stream, std::span<const BlockId> blocks) {
  if (blocks.empty() || is_cache()) return;
  const uint32_t total = cache_.num_blocks();
  arrival_ = (arrival_ + 1) % kArrivals;
  brought_in_[arrival_]->wait();  // the copy that read this part of the ring
  const auto list =
      arrived_.subspan(size_t{arrival_} * total, std::min<size_t>(blocks.size(), total));
  for (size_t done = 0; done < blocks.size(); done += list.size()) {
    // More than there are blocks: some are named twice; those rounds take turns.
    if (done > 0) stream.synchronize();
    const auto part = blocks.subspan(done, std::min(list.size(), blocks.size() - done));
    std::transform(part.begin(), part.end(), list.begin(), [&](BlockId b) {
      return ops::KvCopyBlock{b.value, b.value, 0, cache_.layout().block_tokens};
    });
    ops_.import_kv(stream, {.kv = model::paged_kv(cache_, 0),
                            .block_bytes = cache_.layout().block_bytes(),
                            .blocks = list.first(part.size()),
                            .mirror = mirror_.memory().data(),
                            .mirror_stride = mirror_.layout().block_stride()});
  }
  stream.record(*brought_in_[arrival_]);
}

void KvMirror::begin(uint32_t step, const StepBatch& batch) {
  Step& out = steps_[step];
  out.num_blocks = 0;
  const uint32_t block_tokens = cache_.layout().block_tokens;
  for (const StepSequence& s : batch.sequences) {
    if (!s.digest) continue;
    const uint32_t end = s.position + s.num_rows;
    for (uint32_t b = s.position / block_tokens; b * block_tokens < end; ++b) {
      assert(out.num_blocks < out.blocks.size());
      const uint32_t block = s.block_table[b].value;
      out.blocks[out.num_blocks++] = {block, block, b * block_tokens,
                                      std::min(block_tokens, end - b * block_tokens)};
    }
  }
}

void KvMirror::take_out(uint32_t step, device::Stream& stream, uint32_t layer) {
  Step& out = steps_[step];
  stream.record(*out.computed[layer]);
  stream_->wait(*out.computed[layer]);
  ops_.export_kv(*stream_, {.kv = model::paged_kv(cache_, layer),
                            .layer = layer,
                            .head_begin = cache_.layout().head_begin,
                            .blocks = out.blocks.first(out.num_blocks),
                            .mirror = is_cache() ? nullptr : mirror_.at(BlockId{0}, layer),
                            .mirror_stride = mirror_.layout().block_stride(),
                            .digests = out.digests.data() + size_t{layer} * out.blocks.size()});
  stream_->record(*out.copied[layer]);
}

void KvMirror::finish(uint32_t step, uint32_t layer, StepBatch& batch) {
  const Step& out = steps_[step];
  out.copied[layer]->wait();
  const uint32_t block_tokens = cache_.layout().block_tokens;
  const uint64_t* next = out.digests.data() + size_t{layer} * out.blocks.size();
  for (StepSequence& s : batch.sequences) {
    if (!s.digest) continue;
    const uint32_t end = s.position + s.num_rows;
    const uint32_t blocks = cache_.layout().blocks_for(end) - s.position / block_tokens;
    if (layer == 0) s.digests.resize(size_t{cache_.layout().num_layers()} * blocks);
    std::copy_n(next, blocks, s.digests.begin() + size_t{layer} * blocks);
    next += blocks;
  }
}

}  // namespace baton::engine
