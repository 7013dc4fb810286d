// Placement decisions a second, as the dispatcher makes them for a new request: the prompt's
// prefix hashed and looked up, candidates weighed, the decision judged. Half of the workers compute
// prompts and half decode, all of them pairs, each with a queue and a batch.
#include <benchmark/benchmark.h>

#include <random>

#include "router/placement/length_model.h"
#include "router/placement/placement.h"

namespace baton::router {
namespace {

constexpr TimePoint kNow{seconds(1000)};

proto::WorkerHello hello_of(uint64_t id, proto::Role role) {
  proto::WorkerHello hello;
  hello.set_protocol_min(1);
  hello.set_protocol_max(3);
  hello.set_worker(id);
  hello.set_name("worker-" + std::to_string(id));
  hello.set_role(role);
  hello.set_model("m");
  hello.set_model_key("key");
  hello.set_numerics("numerics");
  hello.set_block_tokens(64);
  hello.set_total_blocks(12'000);
  hello.set_max_context(100'000);
  hello.set_max_sequences(256);
  hello.set_vocab_size(32'000);
  hello.set_chunk_tokens(2048);
  return hello;
}

WorkerPool make_pool(uint64_t workers, std::minstd_rand& random) {
  WorkerPool pool;
  for (uint64_t i = 1; i <= workers; ++i) {
    const proto::Role role = i % 2 == 0 ? proto::ROLE_DECODE : proto::ROLE_PREFILL;
    if (!pool.add(hello_of(i, role), "host:1")) std::abort();
  }
  for (uint64_t i = 1; i <= workers; ++i) {
    proto::Load load;
    load.set_free_blocks(4000 + random() % 4000);
    load.set_total_blocks(12'000);
    load.set_queued_us(random() % 200'000);
    load.set_queued_tokens(random() % 8000);
    load.set_sequences(random() % 64);
    load.set_running(load.sequences());
    load.set_context_tokens(uint64_t{load.sequences()} * 1000);
    auto& costs = *load.mutable_step_costs();
    costs.set_fixed(4.3e-3);
    costs.set_row(1e-6);
    costs.set_row_beyond(2e-5);
    costs.set_ridge_rows(200);
    costs.set_context_token(3e-8);
    costs.set_attended_pair(1e-9);
    if (i % 2 == 0) {
      for (uint64_t p = 1; p <= workers; p += 2) load.add_paired(p);
    }
    if (!pool.update(WorkerId(i), std::move(load), kNow)) std::abort();
    if (i % 2 == 0) continue;
    for (uint64_t k = 0; k < 4; ++k) {
      const TimePoint due = kNow + milliseconds(100 + random() % 400);
      pool.find(WorkerId(i))->prompts.add(RequestId(i * 10 + k), due, due, 0.03);
    }
  }
  return pool;
}

void BM_Decision(benchmark::State& state) {
  std::minstd_rand random(1);
  const WorkerPool pool = make_pool(static_cast<uint64_t>(state.range(0)), random);
  const auto policy = static_cast<Policy>(state.range(1));
  state.SetLabel(std::string(name_of(policy)));
  Placer placer({.policy = policy,
                 .classes = {{.name = "chat", .target = {milliseconds(500), milliseconds(30)}}}});
  PrefixMap prefixes(size_t{1} << 17, 1);
  LengthModel lengths(1);
  std::vector<TokenId> prompt(1000);
  std::vector<uint64_t> units;
  std::vector<PrefixMap::Match> matches;
  uint64_t turn = 0, placed = 0;
  for (auto _ : state) {
    for (size_t i = 0; i < prompt.size(); i += 100) prompt[i] = static_cast<TokenId>(random());
    prefixes.hash("", prompt, units);
    prefixes.find(units, matches);
    const PlacementQuery query{
        .model = "m",
        .shape = {.tokens = prompt.size(),
                  .output = lengths.mean(0, 1000),
                  .due = kNow + milliseconds(500),
                  .promise = kNow + milliseconds(500)},
        .target = {milliseconds(500), milliseconds(30)},
        .received = kNow,
        .matches = matches,
        .now = kNow,
        .turn = turn++,
    };
    const auto decision = placer.place(pool, query);
    if (decision && !placer.judge(pool, query, *decision)) {
      ++placed;
      prefixes.add(units, decision->placement.prefill);
    }
  }
  state.counters["decisions/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["placed"] = static_cast<double>(placed) / static_cast<double>(state.iterations());
}

void Cases(benchmark::internal::Benchmark* b) {
  for (const int64_t workers : {10, 100, 1000, 10'000}) {
    b->Args({workers, static_cast<int64_t>(Policy::kGoodput)});
  }
  for (const Policy policy : {Policy::kLeastLoaded, Policy::kPrefix, Policy::kKvCost}) {
    b->Args({1000, static_cast<int64_t>(policy)});
  }
}
BENCHMARK(BM_Decision)->Apply(Cases)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace baton::router
