#include "common/engine/hash_model.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "common/base/mix.h"
#include "common/kvcache/digest.h"

namespace baton::engine {
namespace {

uint64_t first_word(uint64_t before, TokenId token, uint32_t position) {
  return mix(before ^ mix(uint64_t{position} << 32 | static_cast<uint32_t>(token)));
}
uint64_t vector_word(uint64_t first, uint32_t index) {
  return index == 0 ? first : mix(first + index);
}
uint64_t extend(uint64_t context, uint64_t word) { return mix(context ^ word); }

TokenId choose(const HashModel::Vocabulary& vocabulary, uint64_t context, uint64_t seed,
               uint32_t choice) {
  uint64_t h = mix(context + mix(seed * 31 + choice));
  for (;; h = mix(h)) {
    const auto token = static_cast<TokenId>(h % vocabulary.size);
    if (std::ranges::find(vocabulary.never, token) == vocabulary.never.end()) return token;
  }
}

ops::SampleResult drawn(TokenId token, bool with_top) {
  ops::SampleResult result;  // the one that could be: its probability is 1
  result.token = token;
  result.num_top = with_top ? 1 : 0;
  result.top[0] = {token, 0};
  return result;
}

}  // namespace

HashModel::HashModel(const kvcache::KvCache& cache, uint32_t num_slots, Vocabulary vocabulary)
    : cache_(cache), vocabulary_(std::move(vocabulary)), slots_(num_slots) {
  assert(cache_.layout().vector_bytes() == kVectorBytes);
  assert(vocabulary_.size > vocabulary_.never.size());
}

uint32_t HashModel::words_of(const kvcache::KvLayout& layout) {
  return layout.num_layers() * layout.num_planes() * layout.num_heads();
}

std::vector<TokenId> HashModel::reference_output(uint32_t words, const Vocabulary& vocabulary,
                                                 std::span<const TokenId> prompt,
                                                 const Sampling& sampling, uint32_t choice) {
  uint64_t context = 0, first = 0;
  uint32_t position = 0;
  const auto add = [&](TokenId token) {
    first = first_word(first, token, position++);
    for (uint32_t i = 0; i < words; ++i) context = extend(context, vector_word(first, i));
  };
  for (const TokenId token : prompt) add(token);
  std::vector<TokenId> output;
  do {
    output.push_back(choose(vocabulary, context, sampling.params.seed, choice));
    add(output.back());
  } while (!finish_of(sampling, static_cast<uint32_t>(output.size()) - 1, output.back()));
  return output;
}

// --- writing -------------------------------------------------------------------------------------

void HashModel::begin(StepBatch& batch) {
  for (const SlotOpen& open : batch.opens) slots_.at(open.slot.value) = {open, {}};
  for (const auto& [from, to] : batch.block_copies) {
    std::ranges::copy(cache_.block(from), cache_.block(to).begin());
  }
  for (StepSequence& s : batch.sequences) {
    // The token that the slot drew last is known now: steps run one after the other.
    if (s.tokens.empty()) s.tokens.push_back(slots_.at(s.last_of.value).open.tokens.back());
    if (!s.digest) continue;
    const uint32_t block_tokens = cache_.layout().block_tokens;
    const uint32_t blocks =
        (s.position + s.num_rows - 1) / block_tokens - s.position / block_tokens + 1;
    s.digests.assign(size_t{num_layers()} * blocks, 0);
  }
}

bool HashModel::write_layer(StepBatch& batch, uint32_t layer) {
  bool digested = false;
  for (StepSequence& s : batch.sequences) {
    write_rows(s, layer);
    if (s.digest) digest_rows(s, layer);
    digested |= s.digest;
  }
  return digested;
}

uint64_t& HashModel::word(const StepSequence& s, uint32_t position, uint32_t layer, uint32_t plane,
                          uint32_t head) const {
  const uint32_t block_tokens = cache_.layout().block_tokens;
  std::byte* at = cache_.at(s.block_table.at(position / block_tokens), layer, plane, head,
                            position % block_tokens);
  return *reinterpret_cast<uint64_t*>(at);
}

void HashModel::write_rows(StepSequence& s, uint32_t layer) {
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

void HashModel::digest_rows(StepSequence& s, uint32_t layer) {
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

// --- drawing -------------------------------------------------------------------------------------

void HashModel::finish(StepBatch& batch) {
  for (StepSequence& s : batch.sequences) {
    if (s.prompt_logprobs < 0) continue;
    s.scores.clear();
    for (const TokenId next : s.next_tokens) {
      s.scores.push_back(drawn(next, s.prompt_logprobs > 0));
    }
  }
  for (StepSample& sample : batch.samples) {
    Slot& slot = slots_.at(sample.slot.value);
    const ops::SamplingParams& params = slot.open.params;
    const uint64_t context = context_of(batch.sequences[sample.sequence], slot.folded);
    sample.result = drawn(choose(vocabulary_, context, params.seed, slot.open.choice),
                          params.want_logprobs && params.logprobs > 0);
    slot.open.tokens.push_back(sample.result.token);
  }
}

uint64_t HashModel::hash_block(const StepSequence& s, uint32_t index) const {
  const std::span<const std::byte> bytes = cache_.block(s.block_table.at(index));
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), index);
}

uint64_t HashModel::fold(const StepSequence& s, uint64_t context, uint32_t begin,
                         uint32_t end) const {
  const kvcache::KvLayout& layout = cache_.layout();
  for (uint32_t position = begin; position < end; ++position) {
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      for (uint32_t plane = 0; plane < layout.num_planes(); ++plane) {
        for (uint32_t head = 0; head < layout.num_heads(); ++head) {
          context = extend(context, word(s, position, layer, plane, head));
        }
      }
    }
  }
  return context;
}

// Every byte is read each time, but only those that are new, or not what they were, are folded: the
// hash of a block that stayed is ten times as fast.
uint64_t HashModel::context_of(const StepSequence& s, Folded& folded) const {
  const uint32_t block_tokens = cache_.layout().block_tokens;
  const uint32_t end = s.position + s.num_rows, whole = end / block_tokens;
  uint64_t hashes = 0;
  for (uint32_t i = 0; i < std::min(folded.blocks, whole); ++i) hashes += hash_block(s, i);
  if (folded.blocks > whole || hashes != folded.hashes) folded = {};
  for (; folded.blocks < whole; ++folded.blocks) {
    const uint32_t begin = folded.blocks * block_tokens;
    folded.hashes += hash_block(s, folded.blocks);
    folded.context = fold(s, folded.context, begin, begin + block_tokens);
  }
  return fold(s, folded.context, whole * block_tokens, end);
}

}  // namespace baton::engine
