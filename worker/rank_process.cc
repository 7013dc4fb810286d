#include "worker/rank_process.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "common/base/log.h"
#include "common/device/cpu/cpu_device.h"
#include "common/engine/rank_loop.h"
#include "common/engine/step_codec.h"
#include "common/formats/model_files.h"
#include "common/kvcache/kv_cache.h"
#include "common/model/model.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/proto/rank.pb.h"
#include "kvtransfer/shared_segment.h"
#include "worker/rank_channel.h"

namespace baton::worker {
namespace {

constexpr milliseconds kReply{30'000};

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
    BATON_CHECK_OK(connect());
    BATON_CHECK_OK(load());
    BATON_CHECK_OK(line_.send(RankFrame::kReady, "", kReply));
    BATON_TRY(const auto cache, line_.expect(RankFrame::kCache, kRankLoad));
    BATON_CHECK_OK(attach(cache));
    BATON_CHECK_OK(line_.send(RankFrame::kReady, "", kReply));
    return engine::follow_steps(*runner_, *collective_,
                                [this](engine::StepBatch& batch) { return next(batch); });
  }

 private:
  status connect() {
    BATON_TRY(collective_,
              collective::connect_gloo(
                  setup_.rank(), setup_.size(),
                  [this](const std::string& mine) { return exchange(mine); }, kRankStep));
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

  status load() {
    device_ = device::make_cpu_device(setup_.threads());
    ops_ = ops::cpu_ops();
    BATON_TRY(const auto files, formats::ModelFiles::open(setup_.model()));
    const auto& bytes = files.fingerprint().bytes;
    if (!std::ranges::equal(bytes, setup_.fingerprint(),
                            [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
      return error(Errc::kDataCorrupt, setup_.model() + " has changed meanwhile");
    }
    const proto::RankLimits& limits = setup_.limits();
    model::LoadOptions options;
    options.weights = options.cache = setup_.dtype() == "f32" ? DType::kF32 : DType::kBF16;
    options.max_rows = limits.max_rows();
    options.max_sequences = limits.max_sequences();
    options.max_samples = limits.max_slots();
    options.max_context = limits.max_context();
    options.collective = collective_.get();
    BATON_TRY(model_, model::Model::load(files, *device_, ops_, options));
    return {};
  }

  status attach(const RankChannel::Message& message) {
    proto::RankCache cache;
    if (!cache.ParseFromArray(message.bytes.data(), static_cast<int>(message.bytes.size()))) {
      return error(Errc::kDataCorrupt, "a cache that is none");
    }
    const kvcache::KvLayout layout = model_->kv_layout(cache.block_tokens());
    BATON_CHECK_OK(layout.validate());
    const size_t size = cache.num_blocks() * layout.block_bytes();
    BATON_TRY(memory_, kvtransfer::attach_segment(cache.segment(), size));
    BATON_TRY(const kvcache::KvCache whole,
              kvcache::KvCache::create({memory_.get(), size}, layout, cache.num_blocks()));
    const kvcache::KvCache mine = whole.shard(setup_.rank());
    const proto::RankLimits& limits = cache.limits();
    BATON_TRY(runner_, engine::StepRunner::create(*model_, {mine, mine}, *device_, ops_,
                                                  {.max_rows = limits.max_rows(),
                                                   .max_sequences = limits.max_sequences(),
                                                   .max_slots = limits.max_slots(),
                                                   .max_context = limits.max_context()}));
    return {};
  }

  result<bool> next(engine::StepBatch& batch) {
    BATON_TRY(const auto message, line_.receive(std::nullopt));
    if (!message) return false;
    if (message->frame != RankFrame::kStep) {
      return error(Errc::kDataCorrupt, fmt::format("{} among steps", name(message->frame)));
    }
    BATON_CHECK_OK(engine::decode(message->bytes, &batch));
    return true;
  }

  RankChannel& line_;
  proto::RankSetup setup_;
  std::unique_ptr<collective::Collective> collective_;
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<model::Model> model_;
  kvtransfer::Attached memory_;
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
