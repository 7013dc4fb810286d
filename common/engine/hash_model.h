#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/engine/request.h"
#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"

namespace baton::engine {

// Stands for a model where there is none: in the simulator and on emulated devices. It writes real
// bytes into the cache, layer by layer: each vector depends on all tokens up to its own, and so
// does what is drawn, by every byte that the block table names. A wrong, stale, missing or torn
// byte is a wrong token. What is right is said by reference_output(), without any cache:
//
//   first(p) = mix(first(p−1) ^ mix(p·2³² | token(p))), with first(−1) = 0
//   word(p, i) = i = 0: first(p); else mix(first(p) + i), for i in [0, layers·planes·heads)
//   context = 0, then context = mix(context ^ word(p, i)) for all i of all p so far, in that order
//   token = pick(mix(context + mix(31·seed + choice))), pick(h) = h mod vocabulary, and
//   pick(mix(h))
//           instead while that is one of those that are never drawn
//
// Used by one thread. A step allocates nothing once vectors in the batch have their size, except
// where a slot is opened.
class HashModel {
 public:
  static constexpr uint32_t kVectorBytes = 8;

  struct Vocabulary {
    uint32_t size = 0;
    std::vector<TokenId> never;  // fewer than all
  };

  // `cache`: in host memory, with vectors of kVectorBytes.
  HashModel(const kvcache::KvCache& cache, uint32_t num_slots, Vocabulary vocabulary);

  // A step: these three in order, write_layer for each layer in order.
  void begin(StepBatch& batch);
  // True if there was a sequence to digest: then others may read the layer.
  bool write_layer(StepBatch& batch, uint32_t layer);
  void finish(StepBatch& batch);

  uint32_t num_layers() const { return cache_.layout().num_layers(); }

  // The output of one choice, until it ends. `words`: layers · planes · heads of the layout.
  static std::vector<TokenId> reference_output(uint32_t words, const Vocabulary& vocabulary,
                                               std::span<const TokenId> prompt,
                                               const Sampling& sampling, uint32_t choice);
  static uint32_t words_of(const kvcache::KvLayout& layout);

 private:
  // What was folded of a sequence: its first whole blocks, as long as they hold the same bytes.
  struct Folded {
    uint32_t blocks = 0;
    uint64_t hashes = 0;  // the sum of theirs
    uint64_t context = 0;
  };
  struct Slot {
    SlotOpen open;
    Folded folded;
  };

  uint64_t& word(const StepSequence& s, uint32_t position, uint32_t layer, uint32_t plane,
                 uint32_t head) const;
  void write_rows(StepSequence& s, uint32_t layer);
  void digest_rows(StepSequence& s, uint32_t layer);
  uint64_t hash_block(const StepSequence& s, uint32_t index) const;
  uint64_t fold(const StepSequence& s, uint64_t context, uint32_t begin, uint32_t end) const;
  uint64_t context_of(const StepSequence& s, Folded& folded) const;

  const kvcache::KvCache cache_;
  const Vocabulary vocabulary_;
  std::vector<Slot> slots_;
};

}  // namespace baton::engine
