#include "tests/kvtransfer/sim.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "tests/fakes/fake_devices.h"
#include "tests/kvtransfer/sim_worker.h"

namespace baton::kvtransfer {
namespace {

constexpr uint32_t kMaxAttempts = 5;
constexpr Duration kLongestPause = seconds(6);

// A request on its way through the router.
struct Job {
  SimWorker::Request request;
  HandoffKey key;  // of the attempt at hand
  WorkerId source, sink;
  uint32_t chunk_blocks = 1, attempts = 0;
  uint32_t prefill = 0;  // which computation of the prompt is at hand
  bool done = false;
};

struct Process {
  std::unique_ptr<SimWorker> worker;
  Endpoint endpoint;
  bool decodes = false;
  TimePoint paused_until;
};

class Sim {
 public:
  explicit Sim(const SimConfig& config)
      : config_(config),
        random_(config.seed),
        hub_(make_loopback_hub(config.seed)),
        gpus_(config.seed) {}

  SimResult run() {
    const LoopbackFaults calm{.mapped = config_.faults.network.mapped};
    set_faults(calm);
    for (uint32_t i = 0; i < config_.sources + config_.sinks; ++i)
      start_worker(i >= config_.sources);
    set_faults(config_.faults.network);
    for (uint32_t i = 0; i < config_.requests; ++i) {
      at(up_to(milliseconds(100 * config_.requests)), [this, i] { submit(i); });
    }
    schedule_misfortune();
    run_until([this] { return finished_ == config_.requests; }, seconds(1200));
    if (finished_ < config_.requests) {
      violation(fmt::format("only {} of {} requests ended", finished_, config_.requests));
    }
    calm_ = true;
    set_faults(calm);
    run_until([] { return false; }, seconds(40));  // whatever is left has to go by itself
    check_nothing_is_held();
    return std::move(result_);
  }

 private:
  void set_faults(const LoopbackFaults& faults) {
    hub_->set_faults(faults);
    gpus_.set_faults({.fail_read = faults.fail_get,
                      .corrupt_read = faults.corrupt_get,
                      .delay = faults.get_delay});
  }
  uint64_t pick(uint64_t n) { return random_() % n; }
  bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(random_) < p; }
  Duration up_to(Duration d) { return Duration(static_cast<int64_t>(pick(d.count() + 1))); }
  void at(Duration delay, std::function<void()> what) {
    todo_.emplace(std::pair(now_ + delay, next_todo_++), std::move(what));
  }
  void violation(const std::string& what) {
    result_.violations.push_back(
        fmt::format("seed {} at {:.3f} s: {}", config_.seed, to_seconds(now_ - start_), what));
  }

  // --- time ---
  TimePoint next_time() const;
  void run_until(const std::function<bool()>& done, Duration limit);
  void poll_all();

  // --- processes ---
  void start_worker(bool decodes);
  void schedule_misfortune();
  void kill_one();
  void pause_one();
  Process* find(WorkerId id) {
    const auto it = processes_.find(id);
    return it == processes_.end() ? nullptr : &it->second;
  }
  // Calls a worker as the router would: late if it is paused, not at all if it is dead.
  void call(WorkerId id, std::function<void(SimWorker&)> what);
  WorkerId any(bool decodes);
  void check_nothing_is_held();

  // --- router ---
  SimEvents events(WorkerId id);
  Job* current(const HandoffKey& key) {
    Job& job = jobs_[key.request.value];
    return job.key == key && !job.done ? &job : nullptr;
  }
  void submit(uint32_t index);
  void attempt(Job& job);
  void reserve(Job& job);
  void begin(Job& job);
  void compute(uint64_t request, uint32_t prefill);
  void cancel_at_random(Job& job);
  void retry(Job& job, bool source_lives);
  void retarget(Job& job);
  void end(Job& job, bool joined);
  void watch_deadline(const Job& job);

  const SimConfig config_;
  std::mt19937_64 random_;
  std::unique_ptr<LoopbackHub> hub_;
  FakeDevices gpus_;
  const TimePoint start_ = TimePoint{} + seconds(1000);
  TimePoint now_ = start_;
  std::map<std::pair<TimePoint, uint64_t>, std::function<void()>> todo_;
  uint64_t next_todo_ = 0, next_worker_ = 1;
  std::map<WorkerId, Process> processes_;
  std::vector<std::unique_ptr<SimWorker>> graves_;  // the dead, whose memory may still be read
  std::map<uint64_t, Job> jobs_;
  uint32_t finished_ = 0;
  bool calm_ = false;
  SimResult result_;
};

// --- time ---------------------------------------------------------------------------------------

TimePoint Sim::next_time() const {
  TimePoint next = std::min(hub_->next_event(), gpus_.next_event());
  if (!todo_.empty()) next = std::min(next, todo_.begin()->first.first);
  for (const auto& [id, p] : processes_) {
    next = std::min(next, std::max(p.worker->driver().next_deadline(), p.paused_until));
  }
  return std::max(next, now_);
}

void Sim::run_until(const std::function<bool()>& done, Duration limit) {
  const TimePoint end = now_ + limit;
  while (!done() && result_.violations.empty()) {
    now_ = next_time();
    if (now_ > end) {
      now_ = end;
      return;
    }
    hub_->advance(now_);
    gpus_.advance(now_);
    while (!todo_.empty() && todo_.begin()->first.first <= now_) {
      const auto what = std::move(todo_.begin()->second);
      todo_.erase(todo_.begin());
      what();
      ++result_.events;
    }
    poll_all();
  }
}

void Sim::poll_all() {
  for (bool more = true; more;) {
    more = false;
    std::vector<WorkerId> ids;
    for (const auto& [id, p] : processes_) ids.push_back(id);
    for (const WorkerId id : ids) {
      Process* p = find(id);
      if (p == nullptr || p->paused_until > now_) continue;
      more |= p->worker->driver().poll(now_);
      const result<bool> idle = p->worker->driver().arm();
      more |= !idle || !*idle;
    }
  }
}

// --- processes ----------------------------------------------------------------------------------

void Sim::start_worker(bool decodes) {
  const WorkerId id{next_worker_++};
  const uint32_t block_tokens = config_.mixed_blocks ? 4u << pick(3) : 8;
  auto layout = kvcache::KvLayout::full_kv(3, 2, 4, DType::kBF16, block_tokens);
  if (config_.mixed_blocks && chance(0.4)) layout.shard_heads = {1, 1};
  Process& p = processes_[id];
  p.decodes = decodes;
  const uint32_t num_blocks = 1600 / block_tokens;
  std::unique_ptr<DeviceReads> gpu;
  if (config_.gpus) gpu = gpus_.make_reads(layout, num_blocks, !decodes);
  p.worker = std::make_unique<SimWorker>(
      id, layout, num_blocks, hub_->make_transport("host"), events(id), std::move(gpu),
      config_.gpus ? gpus_.last_memory() : std::span<std::byte>());
  const Hello hello = p.worker->driver().hello();
  p.endpoint = hello.ranks[0].endpoint;
  for (auto& [other_id, other] : processes_) {
    if (other.decodes == decodes) continue;
    const Hello theirs = other.worker->driver().hello();
    // Paired over RPC: either side may be the first to know the other.
    const bool first = chance(0.5);
    for (int i = 0; i < 2; ++i) {
      const bool here = (i == 0) == first;
      const status paired = here ? p.worker->driver().add_peer(theirs, now_)
                                 : other.worker->driver().add_peer(hello, now_);
      if (!paired) violation("pairing: " + paired.error().message);
    }
  }
}

void Sim::schedule_misfortune() {
  if (config_.faults.worker_dies <= 0 && config_.faults.worker_pauses <= 0) return;
  at(seconds(1), [this] {
    if (calm_) return;
    if (chance(config_.faults.worker_dies)) kill_one();
    if (chance(config_.faults.worker_pauses)) pause_one();
    schedule_misfortune();
  });
}

void Sim::kill_one() {
  auto it = processes_.begin();
  std::advance(it, static_cast<long>(pick(processes_.size())));
  const WorkerId dead = it->first;
  const bool decodes = it->second.decodes;
  hub_->kill(it->second.endpoint, chance(0.5));
  graves_.push_back(std::move(it->second.worker));
  processes_.erase(it);
  at(up_to(seconds(3)), [this, decodes] { start_worker(decodes); });
  // The router's own connection to it breaks; the other side has to notice by itself.
  at(up_to(seconds(1)), [this, dead] {
    for (auto& [id, job] : jobs_) {
      if (job.done) continue;
      if (job.source == dead) retry(job, false);
      if (!job.done && job.sink == dead) retry(job, true);
    }
  });
}

void Sim::pause_one() {
  auto it = processes_.begin();
  std::advance(it, static_cast<long>(pick(processes_.size())));
  it->second.paused_until = now_ + up_to(kLongestPause);
}

void Sim::call(WorkerId id, std::function<void(SimWorker&)> what) {
  Process* p = find(id);
  if (p == nullptr) return;
  if (p->paused_until <= now_) {
    what(*p->worker);
  } else {
    at(p->paused_until - now_, [this, id, what] { call(id, what); });
  }
}

WorkerId Sim::any(bool decodes) {
  std::vector<WorkerId> ids;
  for (const auto& [id, p] : processes_) {
    if (p.decodes == decodes) ids.push_back(id);
  }
  return ids.empty() ? WorkerId{} : ids[pick(ids.size())];
}

void Sim::check_nothing_is_held() {
  if (config_.gpus) {
    // The dead keep what they have mapped, as far as this process is all of theirs.
    size_t pairs = 0;
    for (auto& [id, p] : processes_) {
      if (p.decodes) pairs += p.worker->driver().peers().size();
    }
    graves_.clear();
    if (gpus_.mappings() != pairs) {
      violation(fmt::format("{} GPUs' memories are mapped, of {} peers", gpus_.mappings(), pairs));
    }
  }
  for (auto& [id, p] : processes_) {
    const HandoffDriver& d = p.worker->driver();
    if (p.worker->free_blocks() != p.worker->num_blocks() || p.worker->open_requests() != 0 ||
        d.source().num_handoffs() != 0 || d.source().num_early_credits() != 0 ||
        d.source().parked_blocks() != 0 || d.sink().num_handoffs() != 0 ||
        d.sink().held_blocks() != 0 || d.sink().reads_in_flight() != 0) {
      violation(fmt::format(
          "worker {} still holds something: {} of {} blocks free, {} + {} "
          "hand-offs, {} early credits, {} blocks, {} reads",
          id.value, p.worker->free_blocks(), p.worker->num_blocks(), d.source().num_handoffs(),
          d.sink().num_handoffs(), d.source().num_early_credits(), d.sink().held_blocks(),
          d.sink().reads_in_flight()));
    }
    result_.mismatches += d.sink().stats().digest_mismatches;
    result_.rereads += d.sink().stats().rereads;
    result_.ignored += d.source().stats().ignored_messages + d.sink().stats().ignored_messages;
  }
}

// --- router -------------------------------------------------------------------------------------

SimEvents Sim::events(WorkerId) {
  // What a worker says reaches the router after the worker's own call has ended.
  return {
      .joined =
          [this](const HandoffKey& key) {
            if (Job* job = current(key)) end(*job, true);
          },
      .sink_failed =
          [this](const HandoffKey& key, const Error&) {
            at({}, [this, key] {
              if (Job* job = current(key)) retry(*job, true);
            });
          },
      .source_released = [](const HandoffKey&) {},
      .source_failed =
          [this](const HandoffKey& key, const Error&) {
            at({}, [this, key] {
              if (Job* job = current(key)) retry(*job, false);
            });
          },
      .sink_lost =
          [this](const HandoffKey& key) {
            at({}, [this, key] {
              if (Job* job = current(key)) retry(*job, true);
            });
          },
      .violation = [this](std::string what) { violation(what); },
  };
}

void Sim::submit(uint32_t index) {
  Job& job = jobs_[index];
  job.request.seed = config_.seed * 1000003 + index;
  job.request.num_tokens = 1 + static_cast<uint32_t>(pick(chance(0.1) ? 400 : 90));
  job.key = {RouterId{77}, RequestId{index}, Generation{0}};
  attempt(job);
}

void Sim::attempt(Job& job) {
  if (++job.attempts > kMaxAttempts) return end(job, false);
  ++result_.attempts;
  job.key.generation.value += 1 + pick(3);
  job.source = any(false);
  job.sink = any(true);
  job.request.deadline = now_ + seconds(4) + up_to(seconds(30));
  job.chunk_blocks = 1 + static_cast<uint32_t>(pick(6));
  reserve(job);
  begin(job);
  cancel_at_random(job);
  watch_deadline(job);
}

void Sim::reserve(Job& job) {
  const Duration wait =
      chance(config_.faults.refuse) ? up_to(seconds(6)) : up_to(milliseconds(300));
  if (wait > milliseconds(300)) {
    call(job.sink, [this, key = job.key, source = job.source](SimWorker& w) {
      w.driver().refuse(key, source, milliseconds(100), now_);
    });
  }
  at(wait, [this, key = job.key] {
    const Job* job = current(key);
    if (job == nullptr) return;
    call(job->sink, [this, key, source = job->source](SimWorker& w) {
      const Job* job = current(key);
      if (job == nullptr) return;
      SimWorker::Request r = job->request;
      const uint32_t granule = w.driver().granule_tokens(source);
      if (granule > 0)
        r.first_token = granule * static_cast<uint32_t>(pick(r.num_tokens / granule + 1));
      if (!w.reserve(key, r, source, now_)) {
        at(milliseconds(50), [this, key] {
          if (Job* again = current(key)) retry(*again, true);
        });
      }
    });
  });
}

void Sim::begin(Job& job) {
  at(up_to(milliseconds(300)), [this, key = job.key] {
    const Job* job = current(key);
    if (job == nullptr) return;
    call(job->source, [this, key](SimWorker& w) {
      Job* job = current(key);
      if (job == nullptr) return;
      if (!w.begin(key, job->request, job->sink, now_)) {
        at(milliseconds(50), [this, key] {
          if (Job* again = current(key)) retry(*again, false);
        });
      } else {
        compute(key.request.value, ++job->prefill);
      }
    });
  });
}

// One layer of one chunk after the other, as long as anybody wants it. A retarget changes the key
// on the way.
void Sim::compute(uint64_t request, uint32_t prefill) {
  at(up_to(milliseconds(20)), [this, request, prefill] {
    call(jobs_[request].source, [this, request, prefill](SimWorker& w) {
      const Job& job = jobs_[request];
      if (job.prefill != prefill || !w.has_source(job.key)) return;
      const bool last = w.compute(job.key, job.chunk_blocks, now_);
      if (w.has_source(job.key) && chance(config_.faults.damage_source)) {
        w.damage(job.key, random_());
      }
      if (!last) compute(request, prefill);
    });
  });
}

void Sim::cancel_at_random(Job& job) {
  if (!chance(config_.faults.cancel)) return;
  at(up_to(seconds(2)), [this, key = job.key] {
    Job* job = current(key);
    if (job == nullptr) return;
    const uint64_t who = 1 + pick(3);
    if ((who & 1) != 0) {
      call(job->source, [this, key](SimWorker& w) {
        (void)w.driver().abort(key, AbortReason::kCancelled, now_);
      });
    }
    if ((who & 2) != 0) {
      call(job->sink, [this, key](SimWorker& w) { (void)w.driver().cancel(key, now_); });
    }
    // One side may be left to find out by itself; the router never uses this attempt again.
    if (Job* still = current(key)) end(*still, false);
  });
}

// The attempt at hand has failed: another sink may read what the source has, or all starts anew.
void Sim::retry(Job& job, bool source_lives) {
  const HandoffKey key = job.key;
  call(job.sink, [this, key](SimWorker& w) { (void)w.driver().cancel(key, now_); });
  if (current(key) == nullptr) return;  // it joined before it heard
  const Process* source = find(job.source);
  if (source_lives && source != nullptr && source->paused_until <= now_ &&
      source->worker->has_source(key) && job.attempts < kMaxAttempts && chance(0.6)) {
    retarget(job);
    return;
  }
  call(job.source,
       [this, key](SimWorker& w) { (void)w.driver().abort(key, AbortReason::kCancelled, now_); });
  attempt(job);
}

void Sim::retarget(Job& job) {
  ++job.attempts;
  ++result_.retargets;
  const HandoffKey old = job.key;
  const Generation next{old.generation.value + 1 + pick(3)};
  job.key.generation = next;
  job.sink = any(true);
  SimWorker& source = *find(job.source)->worker;
  source.rename(old, job.key);
  const status moved = source.driver().retarget(old, next, job.sink, now_);
  if (!moved) {
    source.rename(job.key, old);
    return attempt(job);
  }
  reserve(job);
  watch_deadline(job);
}

void Sim::end(Job& job, bool joined) {
  job.done = true;
  ++finished_;
  ++(joined ? result_.joined : result_.given_up);
}

// Everybody who took part must be done with an attempt soon after its deadline.
void Sim::watch_deadline(const Job& job) {
  const Duration wait = job.request.deadline - now_ + milliseconds(1);
  at(wait, [this, key = job.key, source = job.source, sink = job.sink] {
    for (const WorkerId id : {source, sink}) {
      const Process* p = find(id);
      if (p == nullptr || p->paused_until + kLongestPause > now_) continue;
      if (p->worker->has_source(key) || p->worker->has_sink(key)) {
        violation(fmt::format("hand-off {} has not ended by its deadline", to_string(key)));
      }
    }
  });
}

}  // namespace

SimResult run_sim(const SimConfig& config) { return Sim(config).run(); }

}  // namespace baton::kvtransfer
