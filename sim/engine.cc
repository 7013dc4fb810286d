#include "sim/engine.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "common/kvcache/digest.h"
#include "sim/random.h"

namespace baton::sim {
namespace {

using engine::StepBatch;
using engine::StepSample;
using engine::StepSequence;

// Vectors are one word here. The first of a token stands for the whole sequence up to it.
uint64_t first_word(uint64_t before, TokenId token, uint32_t position) {
  return mix(before ^ mix(uint64_t{position} << 32 | static_cast<uint32_t>(token)));
}
uint64_t vector_word(uint64_t first, uint32_t index) {
  return index == 0 ? first : mix(first + index);
}

uint64_t fold(uint64_t context, uint64_t word) { return mix(context ^ word); }

TokenId choose(uint64_t context, uint64_t seed, uint32_t choice) {
  return static_cast<TokenId>(mix(context + mix(seed * 31 + choice)) %
                              static_cast<uint64_t>(Engine::kVocabulary));
}

uint32_t words_of(const kvcache::KvLayout& layout) {
  return layout.num_layers() * layout.num_planes() * layout.num_heads();
}

}  // namespace

std::vector<TokenId> Engine::reference_output(const kvcache::KvLayout& layout,
                                              std::span<const TokenId> prompt,
                                              const engine::Sampling& sampling, uint32_t choice) {
  const uint32_t words = words_of(layout);
  uint64_t context = 0, first = 0;
  uint32_t position = 0;
  const auto add = [&](TokenId token) {
    first = first_word(first, token, position++);
    for (uint32_t i = 0; i < words; ++i) context = fold(context, vector_word(first, i));
  };
  for (const TokenId token : prompt) add(token);
  std::vector<TokenId> output;
  do {
    output.push_back(choose(context, sampling.params.seed, choice));
    add(output.back());
  } while (!finish_of(sampling, static_cast<uint32_t>(output.size()) - 1, output.back()));
  return output;
}

uint64_t& Engine::word(const StepSequence& s, uint32_t position, uint32_t layer, uint32_t plane,
                       uint32_t head) const {
  const uint32_t block_tokens = cache_.layout().block_tokens;
  std::byte* at = cache_.at(s.block_table.at(position / block_tokens), layer, plane, head,
                            position % block_tokens);
  return *reinterpret_cast<uint64_t*>(at);
}

void Engine::submit(StepBatch* batch) {
  queue_.push_back(batch);
  if (queue_.size() == 1) start();
}

void Engine::start() {
  StepBatch& batch = *queue_.front();
  for (const engine::SlotOpen& open : batch.opens) slots_.at(open.slot.value) = open;
  for (const auto& [from, to] : batch.block_copies) {
    std::ranges::copy(cache_.block(from), cache_.block(to).begin());
  }
  for (StepSequence& s : batch.sequences) {
    // The token that the slot drew last is known now: steps run one after the other.
    if (s.tokens.empty()) s.tokens.push_back(slots_.at(s.last_of.value).tokens.back());
    if (!s.digest) continue;
    const uint32_t block_tokens = cache_.layout().block_tokens;
    const uint32_t blocks =
        (s.position + s.num_rows - 1) / block_tokens - s.position / block_tokens + 1;
    s.digests.assign(size_t{cache_.layout().num_layers()} * blocks, 0);
  }
  callbacks_.later(layer_time_, [this] { layer_done(0); });
}

void Engine::layer_done(uint32_t layer) {
  StepBatch& batch = *queue_.front();
  bool digested = false;
  for (StepSequence& s : batch.sequences) {
    write_layer(s, layer);
    if (s.digest) digest_layer(s, layer);
    digested |= s.digest;
  }
  if (digested) callbacks_.on_layer(batch, layer);
  if (layer + 1 == cache_.layout().num_layers()) return finish();
  callbacks_.later(layer_time_, [this, layer] { layer_done(layer + 1); });
}

void Engine::write_layer(StepSequence& s, uint32_t layer) {
  const kvcache::KvLayout& layout = cache_.layout();
  const uint32_t a_layer = layout.num_planes() * layout.num_heads();
  for (uint32_t i = 0; i < s.num_rows; ++i) {
    const uint32_t position = s.position + i;
    const uint64_t before = position == 0 ? 0 : word(s, position - 1, 0, 0, 0);
    const uint64_t first =
        layer == 0 ? first_word(before, s.tokens[i], position) : word(s, position, 0, 0, 0);
    uint32_t index = layer * a_layer;
    for (uint32_t plane = 0; plane < layout.num_planes(); ++plane) {
      for (uint32_t head = 0; head < layout.num_heads(); ++head) {
        word(s, position, layer, plane, head) = vector_word(first, index++);
      }
    }
  }
}

void Engine::digest_layer(StepSequence& s, uint32_t layer) {
  const kvcache::KvLayout& layout = cache_.layout();
  const uint32_t end = s.position + s.num_rows, first = s.position / layout.block_tokens;
  const auto blocks = static_cast<uint32_t>(s.digests.size() / layout.num_layers());
  for (uint32_t b = 0; b < blocks; ++b) {
    const uint32_t position = (first + b) * layout.block_tokens;
    s.digests[layer * blocks + b] =
        kvcache::digest_layer(layout, cache_.at(s.block_table[first + b]), layer, position,
                              std::min(layout.block_tokens, end - position));
  }
}

void Engine::finish() {
  StepBatch& batch = *queue_.front();
  for (StepSample& sample : batch.samples) draw(batch, sample);
  queue_.pop_front();
  if (!queue_.empty()) start();
  callbacks_.on_done(batch);
}

void Engine::draw(const StepBatch& batch, StepSample& sample) {
  const StepSequence& s = batch.sequences[sample.sequence];
  const kvcache::KvLayout& layout = cache_.layout();
  engine::SlotOpen& slot = slots_.at(sample.slot.value);
  const uint32_t end = s.position + s.num_rows;
  uint64_t context = 0;
  for (uint32_t position = 0; position < end; ++position) {
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      for (uint32_t plane = 0; plane < layout.num_planes(); ++plane) {
        for (uint32_t head = 0; head < layout.num_heads(); ++head) {
          context = fold(context, word(s, position, layer, plane, head));
        }
      }
    }
  }
  sample.result = {};
  sample.result.token = choose(context, slot.params.seed, slot.choice);
  slot.tokens.push_back(sample.result.token);
}

}  // namespace baton::sim
