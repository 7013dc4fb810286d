#include "worker/rank_process.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "common/base/log.h"
#include "common/engine/rank_loop.h"
#include "common/engine/step_codec.h"
#include "common/formats/model_files.h"
#include "common/kvcache/kv_cache.h"
#include "common/model/model.h"
#include "common/proto/rank.pb.h"
#include "kvtransfer/shared_segment.h"
#include "worker/compute.h"
#include "worker/rank_channel.h"

namespace baton::worker {
namespace {

constexpr milliseconds kReply{30'000};
// Between looks at the device while a step runs there: the next one is told while it does.
constexpr std::chrono::microseconds kLookAgain{20};

// In the order of construction: who comes later uses who came before.
class RankProcess {
 public:
  explicit RankProcess(RankChannel& line) : line_(line) {}

  status run() {
    BATON_TRY(const auto asked, line_.expect(RankFrame::kSetup, kRankStart));
    if (!setup_.ParseFromArray(asked.bytes.data(), static_cast<int>(asked.bytes.size()))) {
      return error(Errc::kDataCorrupt, "a setup that is none");
    }
    init_log(fmt::format("{}/{}", setup_.name(), setup_.rank()), setup_.log_level());
    BATON_TRY(compute_, make_compute(compute_options()));
    BATON_CHECK_OK(connect());
    BATON_CHECK_OK(load());
    BATON_CHECK_OK(line_.send(RankFrame::kReady, "", kReply));
    BATON_TRY(const auto cache, line_.expect(RankFrame::kCache, kRankLoad));
    BATON_CHECK_OK(attach(cache));
    BATON_CHECK_OK(line_.send(RankFrame::kReady, "", kReply));
    const status ended = engine::follow_steps(
        *runner_, *collective_,
        [this](engine::StepBatch& batch, bool wait) { return take(batch, wait); });
    // The first rank is gone: what the device still waits for does not come.
    if (runner_->in_flight() > 0) collective_->give_up(error(Errc::kUnavailable, "it has ended"));
    return ended;
  }

 private:
  status connect() {
    BATON_TRY(collective_, connect_ranks(setup_, *compute_.device, [this](const std::string& mine) {
                return exchange(mine);
              }));
    return {};
  }
  result<std::vector<std::string>> exchange(const std::string& mine) {
    BATON_CHECK_OK(line_.send(RankFrame::kAddresses, mine, kReply));
    BATON_TRY(const auto reply, line_.expect(RankFrame::kAddresses, kRankStart));
    proto::RankAddresses all;
    if (!all.ParseFromArray(reply.bytes.data(), static_cast<int>(reply.bytes.size())) ||
        all.said_size() != static_cast<int>(setup_.size())) {
      return error(Errc::kDataCorrupt, "addresses that are none");
    }
    return std::vector<std::string>(all.said().begin(), all.said().end());
  }

  ComputeOptions compute_options() const {
    const auto rank = static_cast<int>(setup_.rank());
    return {.device = setup_.device(),
            .dtype = setup_.dtype(),
            .threads = setup_.threads(),
            .gpu = rank < setup_.gpus_size() ? setup_.gpus(rank) : 0,
            .deterministic = setup_.deterministic()};
  }

  status load() {
    BATON_TRY(const auto files, formats::ModelFiles::open(setup_.model()));
    const auto& bytes = files.fingerprint().bytes;
    if (!std::ranges::equal(bytes, setup_.fingerprint(),
                            [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
      return error(Errc::kDataCorrupt, setup_.model() + " has changed meanwhile");
    }
    const proto::RankLimits& limits = setup_.limits();
    model::LoadOptions options;
    BATON_TRY(options.weights, parse_dtype(setup_.dtype(), setup_.device()));
    options.cache = options.weights;
    options.max_rows = limits.max_rows();
    options.max_sequences = limits.max_sequences();
    options.max_samples = limits.max_slots();
    options.max_context = limits.max_context();
    options.collective = collective_.get();
    BATON_TRY(model_, model::Model::load(files, *compute_.device, compute_.ops, options));
    return {};
  }

  status attach(const RankChannel::Message& message) {
    proto::RankCache cache;
    if (!cache.ParseFromArray(message.bytes.data(), static_cast<int>(message.bytes.size()))) {
      return error(Errc::kDataCorrupt, "a cache that is none");
    }
    const kvcache::KvLayout layout = model_->kv_layout(cache.block_tokens());
    BATON_CHECK_OK(layout.validate());
    BATON_TRY(const engine::KvMemory kv, kv_memory(cache, layout));
    const proto::RankLimits& limits = cache.limits();
    BATON_TRY(runner_, engine::StepRunner::create(*model_, kv, *compute_.device, compute_.ops,
                                                  {.max_rows = limits.max_rows(),
                                                   .max_sequences = limits.max_sequences(),
                                                   .max_slots = limits.max_slots(),
                                                   .max_context = limits.max_context()}));
    return {};
  }

  // This rank's part of the shared cache, and of the device's where that has memory of its own.
  result<engine::KvMemory> kv_memory(const proto::RankCache& cache,
                                     const kvcache::KvLayout& layout) {
    engine::KvMemory kv;
    const uint32_t blocks = cache.num_blocks();
    const bool shares = cache.segment() >= 0;
    if (shares) {
      const size_t size = blocks * layout.block_bytes();
      BATON_TRY(memory_, kvtransfer::attach_segment(cache.segment(), size));
      BATON_TRY(const kvcache::KvCache whole,
                kvcache::KvCache::create({memory_.get(), size}, layout, blocks));
      kv.host = kv.device = whole.shard(setup_.rank());
    }
    if (compute_.device->info().host_addressable) return kv;
    const kvcache::KvLayout own = layout.shard(setup_.rank()).on_its_own();
    BATON_TRY(device_cache_, compute_.device->allocate(blocks * own.block_bytes()));
    BATON_TRY(kv.device,
              kvcache::KvCache::create({device_cache_.data(), device_cache_.bytes()}, own, blocks));
    if (!shares) kv.host = kv.device;
    return kv;
  }

  result<engine::NextStep> take(engine::StepBatch& batch, bool wait) {
    if (!wait) {
      BATON_TRY(const bool any, line_.has_message(kLookAgain));
      if (!any) return engine::NextStep::kNotYet;
    }
    BATON_TRY(const auto message,
              line_.receive(wait ? std::nullopt : std::optional<milliseconds>(kReply)));
    if (!message) return engine::NextStep::kEnd;
    if (message->frame != RankFrame::kStep) {
      return error(Errc::kDataCorrupt, fmt::format("{} among steps", name(message->frame)));
    }
    BATON_CHECK_OK(engine::decode(message->bytes, &batch));
    return engine::NextStep::kStep;
  }

  RankChannel& line_;
  proto::RankSetup setup_;
  Compute compute_;
  std::unique_ptr<collective::Collective> collective_;
  std::unique_ptr<model::Model> model_;
  kvtransfer::Attached memory_;
  device::Buffer device_cache_;
  std::unique_ptr<engine::StepRunner> runner_;
};

}  // namespace

// A service manager, or a terminal, may signal all processes of a worker: its first rank drains,
// and the others work for that until it is done with them.
int run_rank(int fd) {
  ::signal(SIGTERM, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  RankChannel line(fd);
  const status ended = RankProcess(line).run();
  if (ended) return 0;
  // Where the line is what failed, nobody hears it.
  (void)line.send(RankFrame::kFailed, ended.error().message, milliseconds(1000));
  return 1;
}

}  // namespace baton::worker
