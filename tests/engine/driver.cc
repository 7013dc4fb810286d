#include "tests/engine/driver.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace baton::engine {
namespace {

void expect(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(what);
}

std::vector<TokenId> all_tokens(const Job& job) {
  std::vector<TokenId> tokens = job.prompt;
  tokens.insert(tokens.end(), job.drawn_before.begin(), job.drawn_before.end());
  return tokens;
}

}  // namespace

Driver::Driver(const std::filesystem::path& model, const Options& options)
    : model_(model, options.model),
      limits_{options.model.max_rows, options.model.max_sequences, options.model.max_samples,
              model_.model().max_context()} {
  const KvMemory kv{model_.cache(),
                    options.is_read_on_device ? model_.cache() : model_.host_cache(),
                    options.is_read_on_device};
  engine_ = Engine::create(model_.model(), kv, model_.device(), model_.ops(), limits_,
                           options.depth, options.ranks, options.warm_up)
                .value();
}

std::vector<BlockId> Driver::allocate(uint32_t blocks) {
  const uint32_t total = model_.cache().num_blocks();
  expect(next_block_ + blocks <= total, "the test's cache is too small");
  std::vector<BlockId> table;
  for (uint32_t i = 0; i < blocks; ++i, ++next_block_) {
    // Even places from the front, odd ones from the back.
    const uint32_t half = next_block_ / 2;
    table.push_back(BlockId{next_block_ % 2 == 0 ? half : total - 1 - half});
  }
  return table;
}

EngineEvent Driver::wait() {
  EngineEvent event;
  while (!engine_->poll(event)) {
    pollfd fd = {.fd = engine_->event_fd(), .events = POLLIN, .revents = 0};
    expect(::poll(&fd, 1, 60'000) == 1, "the engine gave no event within a minute");
  }
  return event;
}

std::vector<uint32_t> Driver::run(StepBatch& batch) {
  expect(engine_->submit(&batch), "submit refused");
  std::vector<uint32_t> layers;
  for (;;) {
    const EngineEvent event = wait();
    expect(event.batch == &batch, "an event of another batch");
    if (event.kind == EngineEvent::Kind::kStepDone) return layers;
    layers.push_back(event.layer);
  }
}

void Driver::run(Job& job, uint32_t chunk) {
  std::vector<Job> jobs{std::move(job)};
  run(jobs, chunk);
  job = std::move(jobs[0]);
}

void Driver::add_rows(Job& job, Progress& p, SlotId slot, uint32_t rows, StepBatch& batch) {
  const std::vector<TokenId> tokens = all_tokens(job);
  StepSequence& s = batch.add_sequence();
  s.position = p.computed;
  s.num_rows = rows;
  s.block_table = job.table;
  s.last_of = slot;
  if (p.computed < tokens.size()) {
    s.tokens.assign(tokens.begin() + p.computed, tokens.begin() + p.computed + rows);
  }
  p.computed += rows;
  if (p.computed < tokens.size()) return;
  if (p.computed == tokens.size()) {
    batch.opens.push_back({.slot = slot,
                           .params = job.params,
                           .tokens = tokens,
                           .prompt_tokens = static_cast<uint32_t>(job.prompt.size())});
  }
  ++p.planned;
  batch.samples.push_back(
      {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = slot});
}

void Driver::plan(std::vector<Job>& jobs, std::vector<Progress>& progress, uint32_t step,
                  uint32_t chunk, StepBatch& batch, std::vector<Target>& targets) {
  uint32_t left = limits_.max_rows;
  for (const bool decode : {true, false}) {
    for (uint32_t i = 0; i < jobs.size(); ++i) {
      Job& job = jobs[i];
      Progress& p = progress[i];
      const auto known = static_cast<uint32_t>(job.prompt.size() + job.drawn_before.size());
      const bool decodes = p.computed >= known;
      if (decodes != decode || p.planned == job.max_tokens || job.start_step > step) continue;
      if (!decode && std::any_of(targets.begin(), targets.end(),
                                 [&](const Target& t) { return t.job == i; })) {
        continue;  // drew its first token in this step
      }
      const uint32_t rows = decodes ? 1 : std::min({chunk, known - p.computed, left});
      if (rows == 0 || rows > left || batch.sequences.size() == limits_.max_sequences) continue;
      const uint32_t before = p.planned;
      add_rows(job, p, SlotId{i}, rows, batch);
      if (p.planned > before) targets.push_back({i, before});
      left -= rows;
    }
  }
}

void Driver::run(std::vector<Job>& jobs, uint32_t chunk) {
  std::vector<Progress> progress(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    Job& job = jobs[i];
    progress[i].computed = static_cast<uint32_t>(job.cached.size()) * layout().block_tokens;
    const size_t tokens = job.prompt.size() + job.drawn_before.size() + job.max_tokens;
    job.table = job.cached;
    const auto fresh = allocate(layout().blocks_for(static_cast<uint32_t>(tokens)) -
                                static_cast<uint32_t>(job.cached.size()));
    job.table.insert(job.table.end(), fresh.begin(), fresh.end());
    job.drawn.resize(job.max_tokens);
  }
  std::array<StepBatch, 2> batches;
  std::array<std::vector<Target>, 2> targets;
  uint32_t submitted = 0, done = 0;
  bool more = true;
  for (uint32_t step = 0; more || done < submitted; ++step) {
    StepBatch& batch = batches[submitted % 2];
    batch.clear();
    targets[submitted % 2].clear();
    plan(jobs, progress, step, chunk, batch, targets[submitted % 2]);
    more = !batch.empty() ||
           std::any_of(jobs.begin(), jobs.end(), [&](const Job& j) { return j.start_step > step; });
    if (!batch.empty()) {
      expect(engine_->submit(&batch), "submit refused");
      ++submitted;
    }
    if (done == submitted || (more && submitted - done < 2)) continue;
    expect(wait().kind == EngineEvent::Kind::kStepDone, "a layer that nobody wanted");
    const StepBatch& ended = batches[done % 2];
    for (size_t i = 0; i < ended.samples.size(); ++i) {
      const Target t = targets[done % 2][i];
      jobs[t.job].drawn[t.index] = ended.samples[i].result;
    }
    ++done;
  }
}

}  // namespace baton::engine
