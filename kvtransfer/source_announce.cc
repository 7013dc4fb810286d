#include <algorithm>
#include <utility>

#include "kvtransfer/source.h"

// What a source tells its sink, and in what pieces.
namespace baton::kvtransfer {

void Source::announce_from_credit(Handoff& h, SourceActions& actions) {
  h.announced.assign(config_.layout.num_layers(), config_.layout.blocks_for(h.credit.first_token));
  announce_new(h, actions);
}

void Source::announce_again(Handoff& h, SourceActions& actions) {
  ++stats_.announces_repeated;
  announce_from_credit(h, actions);
  if (h.state == State::kCommitted) commit(h, actions);
}

// Announces what is done and not announced: first the blocks of which all layers are done, which
// the sink reads in one run, then the layers that are ahead.
void Source::announce_new(Handoff& h, SourceActions& actions) {
  const uint32_t layers = config_.layout.num_layers();
  const auto done = [&h](uint32_t layer) { return static_cast<uint32_t>(h.digests[layer].size()); };
  uint32_t all_done = UINT32_MAX, all_announced = 0;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    all_done = std::min(all_done, done(layer));
    all_announced = std::max(all_announced, h.announced[layer]);
  }
  if (all_announced < all_done) {
    for (uint32_t layer = 0; layer < layers;) {
      layer = announce_layers(h, layer, all_announced, actions);
    }
    announce(h, 0, layers, all_announced, all_done, actions);
  }
  for (uint32_t layer = 0; layer < layers;) {
    layer = announce_layers(h, layer, UINT32_MAX, actions);
  }
}

// Announces, up to block `limit`, the layers from `layer` on that are equally far; returns the
// next.
uint32_t Source::announce_layers(Handoff& h, uint32_t layer, uint32_t limit,
                                 SourceActions& actions) {
  const auto goal = [&](uint32_t l) {
    return std::min(static_cast<uint32_t>(h.digests[l].size()), limit);
  };
  uint32_t end = layer + 1;
  while (end < config_.layout.num_layers() && h.announced[end] == h.announced[layer] &&
         goal(end) == goal(layer)) {
    ++end;
  }
  if (h.announced[layer] < goal(layer)) {
    announce(h, layer, end, h.announced[layer], goal(layer), actions);
  }
  return end;
}

// One rectangle, in as many messages as the caps ask for.
void Source::announce(Handoff& h, uint32_t layer_begin, uint32_t layer_end, uint32_t block_begin,
                      uint32_t block_end, SourceActions& actions) {
  const uint32_t layers = layer_end - layer_begin;
  const auto most = static_cast<uint32_t>(
      std::min<size_t>(kMaxAnnounceBlocks, std::max<size_t>(1, kMaxDigests / layers)));
  for (uint32_t at = block_begin; at < block_end;) {
    const uint32_t end = std::min(at + most, block_end);
    Announce message{h.info.key,
                     layer_begin,
                     layer_end,
                     at,
                     std::min(end * config_.layout.block_tokens, h.info.num_tokens),
                     {RankPart{}}};
    RankPart& part = message.parts[0];
    part.blocks.assign(h.blocks.begin() + at, h.blocks.begin() + end);
    part.digests.reserve(size_t{layers} * (end - at));
    for (uint32_t layer = layer_begin; layer < layer_end; ++layer) {
      const auto column = h.digests[layer].begin();
      part.digests.insert(part.digests.end(), column + at, column + end);
      h.announced[layer] = end;
    }
    ++stats_.announces;
    ++h.timings.announces;
    send(h.info.sink, std::move(message), actions);
    at = end;
  }
}

void Source::commit(Handoff& h, SourceActions& actions) {
  const Duration parked = h.timings.credited - h.timings.finished;
  send(h.info.sink,
       Commit{h.info.key, h.info.token_hash, h.info.num_tokens, h.first_tokens,
              std::clamp(parked, Duration::zero(), kMaxLease)},
       actions);
}

}  // namespace baton::kvtransfer
