#include "router/placement/worker_pool.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/formats/utf8.h"
#include "common/net/protocol.h"
#include "router/placement/estimate.h"

namespace baton::router {
namespace {

std::string fingerprint_of(const WorkerSet& set) {
  const std::string text = set.model_key + '\n' + set.numerics;
  return fmt::format("fp_{:016x}", XXH3_64bits(text.data(), text.size()));
}

// Goes into logs and metrics.
bool is_label(std::string_view text, size_t max_bytes) {
  return !text.empty() && text.size() <= max_bytes &&
         std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

status check_sizes(const proto::WorkerHello& hello) {
  const auto bad = [&](std::string_view what) {
    return error(Errc::kInvalidArgument,
                 fmt::format("worker '{}': {}", formats::printable(hello.name()), what));
  };
  if (!net::protocols_meet(hello.protocol_min(), hello.protocol_max())) {
    return bad(fmt::format("speaks protocol {} to {}, this router {} to {}", hello.protocol_min(),
                           hello.protocol_max(), net::kProtocolMin, net::kProtocolMax));
  }
  if (hello.worker() == 0) return bad("has no id");
  if (!is_label(hello.name(), 128) || !is_label(hello.model(), 256)) {
    return bad("has a name that is empty, too long or not printable");
  }
  if (hello.role() != proto::ROLE_PREFILL && hello.role() != proto::ROLE_DECODE &&
      hello.role() != proto::ROLE_MIXED) {
    return bad("has no known role");
  }
  if (hello.block_tokens() == 0 || hello.total_blocks() == 0 || hello.max_context() == 0 ||
      hello.max_sequences() == 0 || hello.vocab_size() == 0) {
    return bad("announces a size of 0");
  }
  return {};
}

// kvcache::ModelKey::to_string() ends with it; empty where the key has another form.
std::string_view tokenizer_of(std::string_view model_key) {
  const size_t at = model_key.rfind(" tokenizer=");
  return at == std::string_view::npos ? std::string_view{} : model_key.substr(at + 1);
}

// The router tokenizes for all of them, before one is chosen.
status check_tokenizer(const proto::WorkerHello& hello, const proto::WorkerHello& other) {
  const std::string_view own = tokenizer_of(hello.model_key()),
                         there = tokenizer_of(other.model_key());
  if (own == there) return {};
  return error(
      Errc::kInvalidArgument,
      fmt::format("worker '{}' serves '{}' with {}, worker '{}' with {}: another tokenizer "
                  "needs another model name",
                  hello.name(), hello.model(), own, other.name(), there));
}

// Sets without workers that are remembered, for requests that wait for them to come back.
constexpr size_t kMostEmptySets = 32;

std::vector<const Worker*>* list_of(ModelWorkers& workers, proto::Role role) {
  switch (role) {
    case proto::ROLE_PREFILL:
      return &workers.prefill;
    case proto::ROLE_DECODE:
      return &workers.decode;
    case proto::ROLE_MIXED:
      return &workers.mixed;
    default:
      return nullptr;
  }
}

const ModelWorkers kNobody;

void list(const Worker& worker, ModelWorkers& workers) {
  if (auto* of_role = list_of(workers, worker.role)) of_role->push_back(&worker);
}

latency::StepCosts costs_of(const proto::StepCosts& c) {
  return {.fixed = c.fixed(),
          .row = c.row(),
          .row_beyond = c.row_beyond(),
          .context_token = c.context_token(),
          .attended_pair = c.attended_pair(),
          .output = c.output(),
          .ridge_rows = c.ridge_rows()};
}

// A worker that says nonsense of its speed is treated as one that says nothing.
bool believable(const proto::StepCosts& c) {
  constexpr double kMost = 1e9;
  const auto good = [](double v) { return v >= 0 && v < kMost; };  // false for NaN
  return c.fixed() > 0 && good(c.fixed()) && good(c.row()) && good(c.row_beyond()) &&
         good(c.context_token()) && good(c.attended_pair()) && good(c.output()) &&
         good(c.ridge_rows());
}

// A day at most; 0 for what is no time.
double believable_seconds(double s) { return s >= 0 && s < 86'400 ? s : 0; }

uint32_t context_of(const proto::WorkerHello& hello) {
  const uint64_t held = uint64_t{hello.total_blocks()} * hello.block_tokens();
  return static_cast<uint32_t>(std::min<uint64_t>(held, hello.max_context()));
}

}  // namespace

status WorkerPool::add(const proto::WorkerHello& hello, std::string address) {
  BATON_CHECK_OK(check_sizes(hello));
  const WorkerId id(hello.worker());
  if (workers_.contains(id)) {
    return error(Errc::kInvalidArgument,
                 fmt::format("worker '{}' is connected already", hello.name()));
  }
  for (const auto& [other_id, other] : workers_) {
    if (other.hello.model() == hello.model()) BATON_CHECK_OK(check_tokenizer(hello, other.hello));
  }
  Worker& worker = workers_[id];
  worker.id = id;
  worker.set = set_of(hello);
  worker.hello = hello;
  worker.address = std::move(address);
  worker.role = hello.role();
  worker.load.set_free_blocks(hello.total_blocks());
  worker.load.set_total_blocks(hello.total_blocks());
  worker.view.block_tokens = hello.block_tokens();
  worker.view.chunk_tokens = hello.chunk_tokens();
  worker.view.max_sequences = hello.max_sequences();
  refresh_view(worker);
  refresh_capacity(hello.model());
  refresh_index(hello.model());
  return {};
}

void WorkerPool::remove(WorkerId id) {
  const auto it = workers_.find(id);
  if (it == workers_.end()) return;
  const std::string model = it->second.hello.model();
  workers_.erase(it);
  refresh_capacity(model);
  refresh_index(model);
}

bool WorkerPool::update(WorkerId id, proto::Load load, TimePoint now) {
  Worker* worker = find(id);
  if (!worker) return false;
  const bool more_room =
      load.free_blocks() > worker->load.free_blocks() ||
      load.running() + load.waiting() < worker->load.running() + worker->load.waiting();
  if (more_room) worker->full_until = worker->line_full_until = {};
  const proto::Role role = load.role() != proto::ROLE_UNSPECIFIED ? load.role() : worker->role;
  const bool drains = load.draining() != worker->load.draining();
  const bool pairs = !std::ranges::equal(load.paired(), worker->load.paired());
  if (pairs) {
    worker->paired.assign(load.paired().begin(), load.paired().end());
    std::ranges::sort(worker->paired);
  }
  worker->load = std::move(load);
  if (believable(worker->load.step_costs())) {
    worker->view.costs = costs_of(worker->load.step_costs());
    if (worker->load.guessed()) take_from_the_fastest(*worker);
    worker->prompts.reported(static_cast<double>(worker->load.queued_us()) * 1e-6, now);
  }
  worker->view.read_latency = believable_seconds(worker->load.link_latency());
  worker->view.read_token = believable_seconds(worker->load.link_token());
  note_others(*worker, now);
  refresh_view(*worker);
  const bool moved = role != std::exchange(worker->role, role);
  if (moved) refresh_capacity(worker->hello.model());
  const WorkerSet& set = sets_.at(worker->set);
  if (moved || drains || (pairs && is_complete(set) != set.complete)) {
    refresh_index(worker->hello.model());
  }
  return true;
}

// Who has hardly taken a step is believed to be as fast as the fastest of its model that has: a
// guess that is too high would keep it from ever being asked, and so from learning.
void WorkerPool::take_from_the_fastest(Worker& worker) const {
  const Worker* fastest = nullptr;
  for (const auto& [id, other] : workers_) {
    const bool knows = other.view.known() && !other.load.guessed() && id != worker.id;
    if (!knows || other.hello.model() != worker.hello.model()) continue;
    if (!fastest || other.view.costs.fixed < fastest->view.costs.fixed) fastest = &other;
  }
  if (fastest != nullptr) worker.view.costs = fastest->view.costs;
}

// What other routers' prompts take of its streams' time. Of those that came since it last spoke it
// tells the sums: they are taken to be of equal length, and to be found as much as those that were
// begun.
void WorkerPool::note_others(Worker& worker, TimePoint now) {
  if (!worker.load.has_of_others()) {
    worker.of_others.reset();
    return;
  }
  const proto::PromptsBegun& said = worker.load.of_others();
  if (worker.of_others && said.prompts() == worker.of_others->prompts()) return;
  const auto before = std::exchange(worker.of_others, said);
  if (!before || said.prompts() < before->prompts()) return;
  if (said.tokens() < before->tokens() || said.cached_tokens() < before->cached_tokens()) return;
  const uint64_t prompts = said.prompts() - before->prompts();
  const uint64_t cached = (said.cached_tokens() - before->cached_tokens()) / prompts;
  const uint64_t tokens = (said.tokens() - before->tokens()) / prompts;
  const uint64_t most = worker.hello.max_context();
  const double each = stall_seconds(worker.view, std::min(tokens, most), std::min(cached, most));
  constexpr double kMostPrompts = 1000;  // between two words: nonsense would be remembered for long
  note_prompt(worker.view, std::min(static_cast<double>(prompts), kMostPrompts) * each, now);
}

// Of those that the worker has not counted yet we know our own prompts' mean length.
void WorkerPool::refresh_view(Worker& worker) {
  const proto::Load& load = worker.load;
  WorkerView& view = worker.view;
  // Our own we know; of others', or of all where they are not told apart, the worker tells.
  view.sequences = load.has_sequences_of_others()
                       ? worker.placed_sequences + load.sequences_of_others()
                       : std::max(load.running() + load.waiting(), worker.placed_sequences);
  view.context = static_cast<double>(load.context_tokens());
  if (view.sequences > load.sequences() && worker.placed_sequences > 0) {
    const double mean = static_cast<double>(worker.placed_tokens) / worker.placed_sequences;
    view.context += mean * (view.sequences - load.sequences());
  }
  const bool any = worker.placed_sequences > 0 && worker.placed_output > 0;
  const auto output = static_cast<double>(worker.placed_output);
  view.output_each = any ? output / worker.placed_sequences : 0;
  view.prompt_each = any ? static_cast<double>(worker.placed_stay) / output : 0;
  view.free_blocks = load.free_blocks();
  view.total_blocks = load.total_blocks();
}

SetId WorkerPool::set_of(const proto::WorkerHello& hello) {
  for (const auto& [id, set] : sets_) {
    if (set.model == hello.model() && set.model_key == hello.model_key() &&
        set.numerics == hello.numerics()) {
      return id;
    }
  }
  ++last_set_.value;
  sets_[last_set_] = {.model = hello.model(),
                      .model_key = hello.model_key(),
                      .numerics = hello.numerics(),
                      .workers = {}};
  return last_set_;
}

bool WorkerPool::is_complete(const WorkerSet& set) const {
  if (!set.workers.mixed.empty()) return true;
  return std::ranges::any_of(set.workers.decode, [&](const Worker* decode) {
    return std::ranges::any_of(decode->paired, [&](uint64_t id) {
      const Worker* prefill = find(WorkerId(id));
      return prefill != nullptr && prefill->set == decode->set && !prefill->load.draining() &&
             prefill->role == proto::ROLE_PREFILL;
    });
  });
}

void WorkerPool::refresh_index(const std::string& model) {
  for (auto& [id, set] : sets_) {
    if (set.model != model) continue;
    set.workers = {};
    set.num_workers = 0;
  }
  for (auto& [id, worker] : workers_) {
    if (worker.hello.model() != model) continue;
    WorkerSet& set = sets_.at(worker.set);
    ++set.num_workers;
    if (!worker.load.draining()) list(worker, set.workers);
  }
  for (auto& [id, set] : sets_) {
    if (set.model == model) set.complete = is_complete(set);
  }
  index_complete_sets(model);
  forget_old_sets();
}

void WorkerPool::index_complete_sets(const std::string& model) {
  ModelWorkers& index = by_model_[model];
  index = {};
  const bool complete_only = servable(model);
  for (auto& [id, worker] : workers_) {
    if (worker.hello.model() != model || worker.load.draining()) continue;
    if (!complete_only || sets_.at(worker.set).complete) list(worker, index);
  }
}

// The oldest first.
void WorkerPool::forget_old_sets() {
  const auto is_empty = [](const auto& entry) { return entry.second.num_workers == 0; };
  auto surplus = std::ranges::count_if(sets_, is_empty) - static_cast<ptrdiff_t>(kMostEmptySets);
  for (auto it = sets_.begin(); surplus > 0 && it != sets_.end();) {
    if (is_empty(*it)) {
      it = sets_.erase(it);
      --surplus;
    } else {
      ++it;
    }
  }
}

const ModelWorkers& WorkerPool::workers_of(std::string_view model) const {
  const auto it = by_model_.find(model);
  return it == by_model_.end() ? kNobody : it->second;
}

const ModelWorkers& WorkerPool::workers_of(SetId id) const {
  const WorkerSet* set = find_set(id);
  return set == nullptr ? kNobody : set->workers;
}

const WorkerSet* WorkerPool::find_set(SetId id) const {
  const auto it = sets_.find(id);
  return it == sets_.end() ? nullptr : &it->second;
}

bool WorkerPool::is_there(SetId id) const {
  const ModelWorkers& workers = workers_of(id);
  return !workers.prefill.empty() || !workers.decode.empty() || !workers.mixed.empty();
}

size_t WorkerPool::num_sets(std::string_view model) const {
  return static_cast<size_t>(std::ranges::count_if(sets_, [&](const auto& entry) {
    return entry.second.num_workers > 0 && entry.second.model == model;
  }));
}

bool WorkerPool::has_other_set(std::string_view model, SetId own) const {
  const WorkerSet* set = find_set(own);
  const bool counts = set != nullptr && set->num_workers > 0 && set->model == model;
  return num_sets(model) > (counts ? 1 : 0);
}

Worker* WorkerPool::find(WorkerId id) {
  const auto it = workers_.find(id);
  return it == workers_.end() ? nullptr : &it->second;
}

const Worker* WorkerPool::find(WorkerId id) const {
  const auto it = workers_.find(id);
  return it == workers_.end() ? nullptr : &it->second;
}

std::optional<ModelCapacity> WorkerPool::capacity(std::string_view model) const {
  const auto it = capacities_.find(model);
  if (it == capacities_.end()) return std::nullopt;
  return it->second;
}

bool WorkerPool::servable(std::string_view model) const {
  return std::ranges::any_of(sets_, [&](const auto& entry) {
    return entry.second.complete && entry.second.model == model;
  });
}

// The smallest of the workers' limits, so that any of them can take what is admitted. With the last
// worker gone the limits stay: requests may wait for it to come back.
void WorkerPool::refresh_capacity(const std::string& model) {
  constexpr uint32_t kNoLimit = std::numeric_limits<uint32_t>::max();
  std::optional<ModelCapacity> least;
  SetId set;
  bool several_sets = false;
  for (const auto& [id, worker] : workers_) {
    const proto::WorkerHello& hello = worker.hello;
    if (hello.model() != model) continue;
    if (!least) {
      least = {kNoLimit, kNoLimit, kNoLimit, {}};
      set = worker.set;
    }
    several_sets = several_sets || worker.set != set;
    least->max_context = std::min(least->max_context, context_of(hello));
    // A prefill worker holds a sequence for a step; its limit is not one of a request's choices.
    if (worker.role != proto::ROLE_PREFILL || worker.auto_role()) {
      least->max_sequences = std::min(least->max_sequences, hello.max_sequences());
    }
    least->vocab_size = std::min(least->vocab_size, hello.vocab_size());
  }
  if (!least) return;
  if (!several_sets) least->fingerprint = fingerprint_of(sets_.at(set));
  const auto before = capacities_.find(model);
  if (least->max_sequences == kNoLimit && before != capacities_.end()) {
    least->max_sequences = before->second.max_sequences;
  }
  capacities_[model] = *least;
}

bool is_paired(const Worker& decode, const Worker& prefill) {
  return decode.set == prefill.set && std::ranges::binary_search(decode.paired, prefill.id.value);
}

bool should_dial(const Worker& reader, const Worker& other) {
  if (reader.id == other.id || reader.set != other.set) return false;
  if (reader.auto_role() && other.auto_role()) return reader.id < other.id;
  return (reader.auto_role() || reader.role == proto::ROLE_DECODE) &&
         (other.auto_role() || other.role == proto::ROLE_PREFILL);
}

}  // namespace baton::router
