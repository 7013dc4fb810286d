#include <algorithm>
#include <utility>

#include "common/base/host_memory.h"
#include "common/base/log.h"
#include "common/device/cpu/cpu_device.h"
#include "common/device/cuda/cuda_ipc.h"
#include "common/engine/emulated_engine.h"
#include "common/engine/engine.h"
#include "common/latency/rough_costs.h"
#include "kvtransfer/loopback_transport.h"
#include "kvtransfer/paced_transport.h"
#include "kvtransfer/shared_segment.h"
#include "kvtransfer/ucx_transport.h"
#include "worker/compute.h"
#include "worker/gpu_reads.h"
#include "worker/kv_devices.h"
#include "worker/node.h"

// What a worker is made of, in the order of Node::start().
namespace baton::worker {
namespace {

constexpr Duration kSayEvery = seconds(2);
// Of a large GPU, and of a server's core and its memory; what steps take corrects them.
constexpr latency::DeviceRoofs kGpuRoofs{3e12, 4e14};
constexpr latency::DeviceRoofs kCpuRoofs{2e10, 2e11};
constexpr uint64_t kMostBlocks = 1u << 24;  // that are emulated

// Says now and then how far a long load is.
model::Progress say_progress(TimePoint begun) {
  return [last = begun](size_t done, size_t total) mutable {
    const TimePoint now = Clock::now();
    if (now - last < kSayEvery || done == total) return;
    last = now;
    LOG_INFO("loading: {} of {} MB, {} %", done >> 20, total >> 20, done * 100 / total);
  };
}

proto::RankLimits to_proto(const engine::StepLimits& limits) {
  proto::RankLimits out;
  out.set_max_rows(limits.max_rows);
  out.set_max_sequences(limits.max_sequences);
  out.set_max_slots(limits.max_slots);
  out.set_max_context(limits.max_context);
  return out;
}

}  // namespace

status Node::make_device() {
  if (is_emulated()) {  // its memory is the host's
    device_ = device::make_cpu_device(1);
    return {};
  }
  ComputeOptions options = {.device = config_.device,
                            .dtype = config_.dtype,
                            .threads = config_.threads,
                            .gpu = config_.gpu,
                            .deterministic = config_.deterministic};
  if (config_.device == "cuda") {
    BATON_TRY(gpus_, gpus_of_ranks(config_));
    options.gpu = gpus_[0];
  }
  BATON_TRY(Compute made, make_compute(options));
  device_ = std::move(made.device);
  ops_ = made.ops;
  return {};
}

status Node::load_model() {
  BATON_TRY(const DType dtype, parse_dtype(config_.dtype, config_.device));
  BATON_CHECK_OK(make_device());
  if (!config_.profile.empty()) {
    BATON_TRY(profile_, latency::read_profile(config_.profile));
  }
  if (is_emulated()) return emulate_model();
  BATON_TRY(const auto files, formats::ModelFiles::open(config_.model));
  limits_ = step_limits(files.config().max_position);

  model::LoadOptions options;
  options.weights = options.cache = dtype;
  options.max_rows = limits_.max_rows;
  options.max_sequences = limits_.max_sequences;
  options.max_samples = limits_.max_slots;
  options.max_context = limits_.max_context;
  if (config_.tensor_parallel > 1) {
    BATON_CHECK_OK(start_ranks(files));
    options.collective = &ranks_->collective();
  }
  const TimePoint begun = Clock::now();
  options.progress = say_progress(begun);
  BATON_TRY(model_, model::Model::load(files, *device_, ops_, options));
  if (ranks_) BATON_CHECK_OK(ranks_->await_loaded());
  LOG_INFO("loaded {} ({} MB on the device) in {:.2f} s", config_.model,
           model_->weight_bytes() >> 20, to_seconds(Clock::now() - begun));
  served_ = {.key = model_->model_key(),
             .numerics = model_->numerics(),
             .layout = model_->kv_layout(config_.block_tokens),
             .vocab_size = model_->config().vocab_size,
             .eos = model_->config().eos_ids};
  return {};
}

status Node::start_ranks(const formats::ModelFiles& files) {
  const uint32_t size = config_.tensor_parallel;
  BATON_TRY(const auto whole, model::Shards::create(files.config(), 0, size));
  (void)whole;  // each rank makes its own; here a degree that cannot be is refused at once
  proto::RankSetup setup;
  setup.set_size(size);
  setup.set_name(config_.name);
  setup.set_log_level(config_.log_level);
  setup.set_model(config_.model);
  const auto& fingerprint = files.fingerprint().bytes;
  setup.set_fingerprint(fingerprint.data(), fingerprint.size());
  setup.set_dtype(config_.dtype);
  setup.set_threads(config_.threads);
  *setup.mutable_limits() = to_proto(limits_);  // that the model is loaded for
  setup.set_device(config_.device);
  setup.mutable_gpus()->Assign(gpus_.begin(), gpus_.end());
  setup.set_deterministic(config_.deterministic);
  setup.set_nccl_library(config_.nccl_library);
  BATON_TRY(ranks_, RankGroup::start(setup, *device_));
  LOG_INFO("{} ranks compute the model together", size);
  return {};
}

// The other ranks write their shards of the cache that the transport has made; where they have one
// on the device, that is its mirror, and is not where nobody reads it.
status Node::attach_ranks() {
  proto::RankCache cache;
  cache.set_segment(-1);
  if (needs_host_cache()) {
    BATON_TRY(const int segment, kvtransfer::segment_at(kv_.host.memory().data()));
    cache.set_segment(segment);
  }
  cache.set_num_blocks(num_blocks_);
  cache.set_block_tokens(config_.block_tokens);
  *cache.mutable_limits() = to_proto(limits_);
  return ranks_->attach(cache);
}

// No weights are read: the model's directory or file says what tokens there are and how many fit.
status Node::emulate_model() {
  if (!profile_) {
    return error(Errc::kInvalidArgument,
                 "device emulated needs a profile: the times it is to take");
  }
  if (config_.tensor_parallel > 1) {
    return error(Errc::kUnsupported,
                 "tensor_parallel is nothing to an emulated device: its profile is that of all its "
                 "ranks");
  }
  BATON_TRY(const formats::ModelConfig model, formats::read_model_config(config_.model));
  limits_ = step_limits(model.max_position);
  served_ = {.key = {.weights = "emulated " + config_.model_name, .adapter = {}, .tokenizer = {}},
             .numerics = "emulated 1",
             .layout = engine::EmulatedEngine::layout(config_.block_tokens),
             .vocab_size = model.vocab_size,
             .eos = model.eos_ids};
  if (served_.eos.size() >= served_.vocab_size) {
    return error(Errc::kInvalidArgument, "the model has no token but those that end");
  }
  LOG_INFO("emulates {}: nothing is computed, tokens are a hash", profile_->name);
  return {};
}

engine::StepLimits Node::step_limits(uint32_t longest) const {
  const uint32_t context =
      config_.max_context == 0 ? longest : std::min(config_.max_context, longest);
  const uint32_t chunk = config_.chunk_tokens == 0 ? context : config_.chunk_tokens;
  return {.max_rows = chunk + config_.max_sequences,
          .max_sequences = config_.max_sequences + 1 + chunk / config_.block_tokens,
          .max_slots = config_.max_sequences * 2,  // prompts about to end, and outputs
          .max_context = context};
}

uint32_t Node::kv_bytes_per_token() const {
  if (is_emulated()) return profile_->kv_bytes_per_token;
  return static_cast<uint32_t>(served_.layout.block_bytes() / config_.block_tokens);
}

// What crosses between emulated workers is small: each byte stands for so many of the model's.
double Node::profile_bytes_scale() const {
  return static_cast<double>(profile_->kv_bytes_per_token) * config_.block_tokens /
         static_cast<double>(served_.layout.block_bytes());
}

// Of an emulated device as many as there would be, though each is small here.
uint32_t Node::blocks_that_fit() const {
  if (!is_emulated()) return kvcache::blocks_that_fit(served_.layout, config_.kv_bytes);
  const uint64_t block_bytes = uint64_t{kv_bytes_per_token()} * config_.block_tokens;
  return static_cast<uint32_t>(std::min<uint64_t>(config_.kv_bytes / block_bytes, kMostBlocks));
}

status Node::make_core() {
  CoreConfig core;
  core.role = config_.role;
  core.auto_role = config_.auto_role;
  core.handoff.layout = served_.layout;
  const kvcache::KvLayout& layout = served_.layout;
  BATON_CHECK_OK(layout.validate());
  num_blocks_ = blocks_that_fit();
  if (num_blocks_ < 2) {
    return error(Errc::kInvalidArgument, "the KV cache of " + std::to_string(config_.kv_bytes) +
                                             " bytes holds fewer than two blocks of " +
                                             std::to_string(config_.block_tokens) +
                                             " tokens; give it more");
  }
  limits_.max_context = std::min(limits_.max_context, num_blocks_ * config_.block_tokens);

  BATON_TRY(auto transport, make_transport());
  core.handoff.worker = id_;
  core.handoff.model_key = served_.key.to_string();
  core.handoff.numerics = served_.numerics;
  core.handoff.num_blocks =
      needs_host_cache() || reads_on_device() ? num_blocks_ : 1;  // it cannot be none
  if (needs_host_cache()) {
    BATON_CHECK_OK(check_room("the KV cache (kv_gib)", num_blocks_ * layout.block_bytes(),
                              read_host_memory()));
  }
  if (is_emulated()) {
    core.layer_token_bytes = profile_->kv_bytes_per_token / served_.layout.num_layers();
  }
  if (profile_) {
    core.handoff.link = {profile_->link.latency, profile_->link.byte * profile_bytes_scale()};
  }
  core.handoff.clock = [] { return Clock::now(); };
  core.handoff.verify_digests = config_.verify_kv;
  if (ranks_) core.handoff.sharing = kvtransfer::Sharing::kRanks;
  if (!config_.verify_kv) LOG_WARN("verify-kv is off: KV that is read is not checked");
  core.handoff.max_parked_blocks = num_blocks_ / 2;  // the rest is for prompts that somebody reads
  core.model_key = served_.key;
  core.limits = limits_;
  core.requests = request_limits();
  core.num_blocks = num_blocks_;
  core.chunk_tokens = config_.chunk_tokens;
  core.prefix_cache = config_.prefix_cache;
  core.preempt_every = config_.preempt_every;
  // Before the accounts of its blocks, which are the host's and have no error for too many.
  if (!device_->info().host_addressable) {
    auto memory = device_->allocate(num_blocks_ * own_layout().block_bytes());
    if (!memory) {
      return error(memory.error().code, "the KV cache (kv_gib): " + memory.error().message);
    }
    device_cache_ = std::move(*memory);
  }
  std::unique_ptr<kvtransfer::DeviceReads> reads;
  if (reads_on_device()) {
    BATON_TRY(reads, make_device_reads());
  }
  BATON_TRY(core_,
            WorkerCore::create(core, std::move(transport), *this, metrics_, std::move(reads)));
  if (needs_host_cache()) {
    BATON_TRY(kv_.host, kvcache::KvCache::create(core_->driver().cache(), layout, num_blocks_));
  }
  if (ranks_) BATON_CHECK_OK(attach_ranks());
  if (needs_host_cache()) kv_.host = kv_.host.shard(0);
  BATON_CHECK_OK(use_device_cache());
  handoff_loop_.emplace(io_, core_->driver());
  return handoff_loop_->start();
}

RequestLimits Node::request_limits() const {
  RequestLimits limits;
  limits.vocab_size = served_.vocab_size;
  limits.eos = served_.eos;
  limits.max_context = limits_.max_context;
  // Prefill decodes none of them: its scheduler has the bound.
  if (decodes()) limits.max_choices = config_.max_sequences;
  return limits;
}

// Where the host cannot address the device's memory, the cache is there, and what peers read is a
// mirror of it, or the cache itself. A worker that stays mixed is read by nobody.
bool Node::needs_host_cache() const {
  return device_->info().host_addressable || (hands_over() && !reads_on_device());
}

result<std::unique_ptr<kvtransfer::DeviceReads>> Node::make_device_reads() {
  BATON_TRY(auto ipc, device::make_cuda_ipc(static_cast<int>(gpus_[0])));
  BATON_TRY(const auto cache,
            kvcache::KvCache::create({device_cache_.data(), device_cache_.bytes()}, served_.layout,
                                     num_blocks_));
  return make_gpu_reads({.cache = cache,
                         .memory = device_cache_,
                         .device = *device_,
                         .ops = ops_,
                         .is_read = config_.auto_role || config_.role == proto::ROLE_PREFILL},
                        std::move(ipc));
}

// Of the first rank's heads, where it has the device's memory to itself.
kvcache::KvLayout Node::own_layout() const { return served_.layout.shard(0).on_its_own(); }

status Node::use_device_cache() {
  kv_.device = kv_.host;
  if (device_->info().host_addressable) return {};
  BATON_TRY(kv_.device, kvcache::KvCache::create({device_cache_.data(), device_cache_.bytes()},
                                                 own_layout(), num_blocks_));
  if (!needs_host_cache()) kv_.host = kv_.device;
  kv_.is_read_on_device = reads_on_device();
  LOG_INFO("KV: {} MB on the device; hand-offs {}", device_cache_.bytes() >> 20,
           needs_host_cache()  ? "are staged through page-locked host memory"
           : reads_on_device() ? "are read there, by CUDA IPC"
                               : "are not needed");
  return {};
}

result<std::unique_ptr<kvtransfer::Transport>> Node::make_transport() {
  // A worker that stays mixed reads nobody and is read by nobody: it opens no port for it.
  if (!hands_over()) return hub_->make_transport(config_.name);
  kvtransfer::UcxOptions ucx;
  if (config_.transport == "tcp") {
    ucx.tls = "tcp";
  } else if (config_.transport == "shm") {
    ucx.tls = "shm";
  }
  BATON_TRY(ucx.net_devices, kv_devices(config_));
  ucx.tcp_port_range = config_.ucx_port_range;
  ucx.name = config_.name;
  ucx.is_read = !reads_on_device() && (config_.auto_role || config_.role == proto::ROLE_PREFILL);
  BATON_TRY(auto transport, kvtransfer::make_ucx_transport(ucx));
  if (!is_emulated()) return transport;
  return kvtransfer::make_paced_transport(
      std::move(transport), {.costs = profile_->link, .scale = profile_bytes_scale()});
}

// What steps are believed to take before any was seen.
latency::StepModel Node::prior() const {
  if (profile_) return latency::StepModel(profile_->step);
  const double kv_bytes = static_cast<double>(served_.layout.block_bytes()) / config_.block_tokens;
  const latency::DeviceRoofs roofs =
      config_.device == "cuda" ? kGpuRoofs
                               : latency::DeviceRoofs{kCpuRoofs.bytes_per_second,
                                                      kCpuRoofs.flop_per_second * config_.threads};
  return latency::StepModel(
      latency::rough_costs(static_cast<double>(model_->weight_bytes()), kv_bytes, roofs),
      latency::kRoughFit);
}

status Node::make_engine() {
  if (is_emulated()) {
    BATON_TRY(engine_, engine::EmulatedEngine::create(kv_.host, limits_, profile_->step,
                                                      {served_.vocab_size, served_.eos},
                                                      config_.step_depth));
  } else {
    const engine::WarmUp warm_up = {.max_rows = config_.max_sequences,
                                    .most = decodes() ? config_.warm_up : Duration::zero()};
    BATON_TRY(engine_, engine::Engine::create(*model_, kv_, *device_, ops_, limits_,
                                              config_.step_depth, ranks_.get(), warm_up));
  }
  step_times_.emplace(prior());
  std::vector<serving::StepClient*> clients = core_->step_clients();
  clients.push_back(&*step_times_);
  if (!config_.record_steps.empty()) {
    BATON_TRY(auto file, RecordFile::create(config_.record_steps, StepRecorder::kHeader));
    clients.push_back(&step_recorder_.emplace(std::move(file)));
  }
  step_loop_.emplace(io_, *engine_, limits_, config_.step_depth, std::move(clients), metrics_,
                     [this](const Error& why) { fail(why); });
  return {};
}

}  // namespace baton::worker
