#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kvtransfer/handoff_driver.h"

namespace baton::kvtransfer {

inline constexpr uint64_t kTestTokenHash = 4711;  // of every prompt

struct RealWorkerOptions {
  uint64_t id = 1;
  std::string tls = "all";
  kvcache::KvLayout layout;
  uint32_t num_blocks = 64;
  bool verify_digests = true;
  uint64_t read_bytes = 256u << 10;
  uint32_t protocol_max = kProtocolMax;
  // Everything else that is counted in time follows from these two.
  Duration lease = seconds(5);
  Duration peer_timeout = seconds(2);
};

// A worker over UCX with an event loop on its descriptor, as a service would have it, and an engine
// that writes KV which knows whose it is (kv_pattern.h). Sequences take blocks [begin, end) that
// the caller chooses. One thread.
class RealWorker final : public HandoffListener {
 public:
  explicit RealWorker(const RealWorkerOptions& options);

  HandoffDriver& driver() { return *driver_; }
  // Waits on the driver's descriptor and `extra_fd` (-1: none), and handles what comes, until
  // `done`; false after `limit`.
  bool run_until(const std::function<bool()>& done, Duration limit, int extra_fd = -1,
                 const std::function<void()>& on_extra = {});

  // The whole prompt of a hand-off in one go, with KV from `seed`: begin, all layers, finished.
  void hand_over(const HandoffKey& key, WorkerId sink, uint32_t first_block, uint32_t tokens,
                 uint64_t seed, Duration deadline);
  void begin(const HandoffKey& key, WorkerId sink, uint32_t tokens, Duration deadline);
  // Nothing is told to a hand-off that has ended meanwhile.
  void compute_layers(const HandoffKey& key, uint32_t layer_begin, uint32_t layer_end,
                      uint32_t first_block, uint32_t tokens, uint64_t seed);
  void finish(const HandoffKey& key);
  void reserve(const HandoffKey& key, WorkerId source, uint32_t first_block, uint32_t tokens,
               Duration deadline);
  size_t wrong_vectors(uint32_t first_block, uint32_t tokens, uint64_t seed) const;

  // What the listener heard, by request id.
  std::map<uint64_t, Joined> joined_;
  std::map<uint64_t, Error> sink_failed_, source_failed_, sink_lost_;
  std::map<uint64_t, int> released_;  // as the sink
  std::map<uint64_t, SourceReleased> source_released_;
  std::vector<WorkerId> up_, lost_;
  std::string transport_;

  void joined(const Joined& j, TimePoint) override { joined_[j.key.request.value] = j; }
  void sink_failed(const HandoffKey& key, const Error& e) override {
    sink_failed_[key.request.value] = e;
  }
  void sink_released(const HandoffKey& key, std::span<const BlockId>) override {
    ++released_[key.request.value];
  }
  void source_released(const SourceReleased& r) override {
    source_released_[r.key.request.value] = r;
  }
  void source_failed(const SourceFailed& f) override {
    source_failed_[f.key.request.value] = f.error;
  }
  void source_refused(const HandoffKey&, Duration) override {}
  void source_sink_lost(const HandoffKey& key, const Error& e, TimePoint) override {
    sink_lost_[key.request.value] = e;
  }
  void peer_up(WorkerId worker, std::string_view transport) override {
    up_.push_back(worker);
    transport_ = transport;
  }
  void peer_lost(WorkerId worker, const Error&) override { lost_.push_back(worker); }

 private:
  std::vector<BlockId> blocks(uint32_t first_block, uint32_t tokens) const;

  const RealWorkerOptions options_;
  std::unique_ptr<HandoffDriver> driver_;
};

HandoffKey test_key(uint64_t request, uint64_t generation = 1);

}  // namespace baton::kvtransfer
