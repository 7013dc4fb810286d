#include "sim/engine.h"

namespace baton::sim {

using engine::StepBatch;

std::vector<TokenId> Engine::reference_output(const kvcache::KvLayout& layout,
                                              std::span<const TokenId> prompt,
                                              const engine::Sampling& sampling, uint32_t choice) {
  return engine::HashModel::reference_output(engine::HashModel::words_of(layout), {kVocabulary, {}},
                                             prompt, sampling, choice);
}

void Engine::submit(StepBatch* batch) {
  queue_.push_back(batch);
  if (queue_.size() == 1) start();
}

void Engine::start() {
  model_.begin(*queue_.front());
  callbacks_.process.later(layer_time_, [this] { layer_done(0); });
}

void Engine::layer_done(uint32_t layer) {
  StepBatch& batch = *queue_.front();
  if (model_.write_layer(batch, layer)) callbacks_.on_layer(batch, layer);
  if (layer + 1 == model_.num_layers()) return finish();
  callbacks_.process.later(layer_time_, [this, layer] { layer_done(layer + 1); });
}

void Engine::finish() {
  StepBatch& batch = *queue_.front();
  model_.finish(batch);
  queue_.pop_front();
  if (!queue_.empty()) start();
  callbacks_.on_done(batch);
}

}  // namespace baton::sim
