#include "common/collective/nccl_collective.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/log.h"
#include "common/collective/host_sums.h"
#include "common/collective/nccl_api.h"

namespace baton::collective {
namespace {

constexpr milliseconds kLook{20};     // between looks at whether all is well
constexpr milliseconds kCall{1'000};  // that a call in progress may take before it is broken off
constexpr milliseconds kEnd{10'000};  // until aborted work has left the device
constexpr char kReady = '+', kFailed = '-';

class NcclCollective final : public Collective {
 public:
  NcclCollective(const NcclApi& api, NcclComm comm, std::unique_ptr<Collective> host,
                 milliseconds timeout, const NcclOptions& options)
      : api_(api),
        comm_(comm),
        host_(std::move(host)),
        timeout_(timeout),
        device_(*options.device),
        native_stream_(options.native_stream),
        watcher_([this] { watch(); }) {}
  ~NcclCollective() override;

  uint32_t rank() const override { return host_.ranks().rank(); }
  uint32_t size() const override { return host_.ranks().size(); }

  void all_gather(device::Stream& stream, const std::byte* part, std::span<const size_t> bytes,
                  std::byte* all) override;
  void sum_on_first(std::span<uint64_t> values) override {
    if (health()) host_.sum_on_first(values);
  }
  void tell_under_way(bool under_way) override {
    const std::lock_guard lock(mutex_);
    since_ = under_way ? std::optional(Clock::now()) : std::nullopt;
    if (!health_) changed_.notify_all();
  }
  void give_up(const Error& why) override;
  status health() const override {
    const std::lock_guard lock(mutex_);
    return health_;
  }

 private:
  NcclResult gather(NcclStream stream, const std::byte* part, std::span<const size_t> bytes,
                    std::byte* all);
  void watch();
  status look() const;
  void abort();

  const NcclApi api_;
  const NcclComm comm_;
  HostSums host_;
  const milliseconds timeout_;
  device::Device& device_;
  void* (*const native_stream_)(device::Stream&);

  std::timed_mutex calls_;  // held in calls that enqueue
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  status health_;
  std::optional<TimePoint> since_;  // when what is under way last came on
  bool stop_ = false;
  std::thread aborter_;  // once it is lost
  std::thread watcher_;
};

NcclCollective::~NcclCollective() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  watcher_.join();
  // To destroy it in good order is something that ranks do together, and others may be gone.
  if (!aborter_.joinable()) abort();
  aborter_.join();
}

// Parts of one size are one call, others one call a rank, which NCCL runs as one.
NcclResult NcclCollective::gather(NcclStream stream, const std::byte* part,
                                  std::span<const size_t> bytes, std::byte* all) {
  if (std::ranges::all_of(bytes, [&](size_t n) { return n == bytes[0]; })) {
    if (bytes[0] == 0) return kNcclSuccess;
    return api_.all_gather(part, all, bytes[0], kNcclUint8, comm_, stream);
  }
  if (const NcclResult begun = api_.group_start(); begun != kNcclSuccess) return begun;
  NcclResult worst = kNcclSuccess;
  std::byte* at = all;
  for (size_t r = 0; r < bytes.size(); at += bytes[r++]) {
    if (bytes[r] == 0) continue;
    const NcclResult told = api_.broadcast(r == rank() ? part : at, at, bytes[r], kNcclUint8,
                                           static_cast<int>(r), comm_, stream);
    if (told != kNcclSuccess) worst = told;
  }
  const NcclResult ended = api_.group_end();
  return worst != kNcclSuccess ? worst : ended;
}

void NcclCollective::all_gather(device::Stream& stream, const std::byte* part,
                                std::span<const size_t> bytes, std::byte* all) {
  const std::lock_guard lock(calls_);
  if (!health()) return;
  const NcclResult done = gather(native_stream_(stream), part, bytes, all);
  if (done == kNcclSuccess) return;
  give_up(error(Errc::kUnavailable,
                "a rank is lost: " + api_.error_of("gathering", done, comm_).message));
}

void NcclCollective::give_up(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (health_) health_ = why;
  changed_.notify_all();
}

// Of what nobody says: whether a rank is gone.
status NcclCollective::look() const {
  NcclResult found = kNcclSuccess;
  const NcclResult asked = api_.comm_get_async_error(comm_, &found);
  if (asked != kNcclSuccess) found = asked;
  if (found == kNcclSuccess || found == kNcclInProgress) return host_.ranks().health();
  return error(Errc::kUnavailable,
               "a rank is lost: " + api_.error_of("NCCL", found, comm_).message);
}

void NcclCollective::watch() {
  std::unique_lock lock(mutex_);
  while (health_) {
    changed_.wait_for(lock, kLook, [this] { return stop_ || !health_; });
    if (stop_) return;
    if (!health_) break;
    if (since_ && Clock::now() - *since_ > timeout_) {
      health_ = error(Errc::kUnavailable,
                      fmt::format("a rank is lost: what all compute together has not come on for "
                                  "{} ms",
                                  timeout_.count()));
      break;
    }
    lock.unlock();
    const status seen = look();
    lock.lock();
    if (!seen && health_) health_ = seen;
  }
  const Error why = health_.error();
  lock.unlock();
  host_.ranks().give_up(why);
  abort();
  lock.lock();
  const auto is_over = [this] { return stop_ || !since_; };
  if (changed_.wait_for(lock, kEnd, is_over)) return;
  LOG_ERROR("{}; and the GPU does not come to an end: this process ends", why.message);
  spdlog::shutdown();
  std::_Exit(1);
}

// Returns at once; NCCL's call ends when no recording has gathers of it any more. A call that still
// waits for a rank is broken off by it.
void NcclCollective::abort() {
  aborter_ = std::thread([this] {
    device_.enter_thread();
    const std::unique_lock lock(calls_, kCall);
    api_.comm_abort(comm_);
  });
}

// NCCL's part of it on a thread of its own, since it has no deadline and a rank may stay away. It
// is left to itself then; the process had better end.
struct Connecting {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<NcclResult> done;
  NcclComm comm = nullptr;
};

result<NcclComm> connect(const NcclApi& api, const NcclUniqueId& id, uint32_t rank, uint32_t size,
                         const NcclOptions& options) {
  const auto state = std::make_shared<Connecting>();
  std::thread([state, api, id, rank, size, device = options.device] {
    device->enter_thread();
    NcclComm comm = nullptr;
    const NcclResult done =
        api.comm_init_rank(&comm, static_cast<int>(size), id, static_cast<int>(rank));
    const std::lock_guard lock(state->mutex);
    state->comm = comm;
    state->done = done;
    state->changed.notify_all();
  }).detach();
  std::unique_lock lock(state->mutex);
  if (!state->changed.wait_for(lock, options.connect, [&] { return state->done.has_value(); })) {
    return error(Errc::kUnavailable,
                 fmt::format("rank {} of {} does not find the others: NCCL has not connected them "
                             "in {} s",
                             rank, size, options.connect.count() / 1000));
  }
  if (*state->done == kNcclSuccess) return state->comm;
  return error(Errc::kUnavailable,
               fmt::format("rank {} of {}: {}", rank, size,
                           api.error_of("NCCL connects no ranks", *state->done, nullptr).message));
}

// What rank 0 has to say to the others, who only say that they are ready.
result<std::string> greeting(const result<NcclApi>& api, uint32_t rank) {
  if (!api) return api.error();
  if (rank != 0) return std::string(1, kReady);
  NcclUniqueId id;
  if (const NcclResult made = api->get_unique_id(&id); made != kNcclSuccess) {
    return api->error_of("ncclGetUniqueId", made, nullptr);
  }
  return kReady + std::string(id.bytes.data(), id.bytes.size());
}

}  // namespace

result<std::unique_ptr<Collective>> connect_nccl(uint32_t rank, uint32_t size,
                                                 const Exchange& exchange, milliseconds timeout,
                                                 const NcclOptions& options) {
  BATON_TRY(std::unique_ptr<Collective> host, connect_gloo(rank, size, exchange, timeout));
  const result<NcclApi> api = NcclApi::load(options.library);
  const result<std::string> mine = greeting(api, rank);
  // Who cannot says so, too: the others would wait for it.
  BATON_TRY(const auto said, exchange(mine ? *mine : kFailed + mine.error().message));
  if (!mine) return mine.error();
  for (uint32_t r = 0; r < said.size(); ++r) {
    if (said[r].starts_with(kReady)) continue;
    return error(Errc::kUnavailable, fmt::format("rank {} of {}: {}", r, size,
                                                 said[r].substr(said[r].empty() ? 0 : 1)));
  }
  NcclUniqueId id;
  if (said.size() != size || said[0].size() != 1 + id.bytes.size()) {
    return error(Errc::kDataCorrupt, "rank 0 says nothing that NCCL could connect to");
  }
  std::memcpy(id.bytes.data(), said[0].data() + 1, id.bytes.size());
  BATON_TRY(const NcclComm comm, connect(*api, id, rank, size, options));
  if (rank == 0) LOG_INFO("{} ranks are connected by NCCL {}", size, api->version());
  return std::unique_ptr<Collective>(
      std::make_unique<NcclCollective>(*api, comm, std::move(host), timeout, options));
}

}  // namespace baton::collective
