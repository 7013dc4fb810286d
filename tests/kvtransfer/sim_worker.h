#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "kvtransfer/handoff_driver.h"
#include "kvtransfer/range_digest.h"
#include "tests/kvtransfer/kv_pattern.h"

namespace baton::kvtransfer {

// What the simulated router hears from workers.
struct SimEvents {
  std::function<void(const HandoffKey&)> joined;
  std::function<void(const HandoffKey&, const Error&)> sink_failed;
  std::function<void(const HandoffKey&)> source_released;
  std::function<void(const HandoffKey&, const Error&)> source_failed;
  std::function<void(const HandoffKey&)> sink_lost;
  std::function<void(std::string)> violation;
};

// A worker: a driver, block accounting, and an engine that writes KV which knows whose it is.
class SimWorker final : public HandoffListener {
 public:
  struct Request {  // one hand-off, as either role
    uint64_t seed = 0;
    uint32_t first_token = 0, num_tokens = 0;
    std::vector<BlockId> blocks;
    uint32_t blocks_done = 0, layers_done = 0;  // source: of the chunk that is computed now
    TimePoint deadline;
  };

  // With `gpu`, the cache is there, in `gpu_memory`.
  SimWorker(WorkerId id, const kvcache::KvLayout& layout, uint32_t num_blocks,
            std::unique_ptr<Transport> transport, SimEvents events,
            std::unique_ptr<DeviceReads> gpu = nullptr, std::span<std::byte> gpu_memory = {});

  HandoffDriver& driver() { return *driver_; }
  WorkerId id() const { return id_; }
  const kvcache::KvLayout& layout() const { return layout_; }
  size_t free_blocks() const { return free_.size(); }
  uint32_t num_blocks() const { return num_blocks_; }
  bool has_source(const HandoffKey& key) const { return sources_.contains(key); }
  bool has_sink(const HandoffKey& key) const { return sinks_.contains(key); }
  size_t open_requests() const { return sources_.size() + sinks_.size() + quarantined_.size(); }

  // As the source. False: no room.
  bool begin(const HandoffKey& key, const Request& request, WorkerId sink, TimePoint now);
  // Computes the next layer of the next chunk of `chunk_blocks`; true: all is done and finished.
  bool compute(const HandoffKey& key, uint32_t chunk_blocks, TimePoint now);
  void rename(const HandoffKey& from, const HandoffKey& to);
  // Changes one byte of KV that has been announced, if there is any.
  void damage(const HandoffKey& key, uint64_t random);

  // As the sink. False: no room.
  bool reserve(const HandoffKey& key, const Request& request, WorkerId source, TimePoint now);

  void joined(const Joined& joined, TimePoint now) override;
  void sink_failed(const HandoffKey& key, const Error& error) override;
  void sink_released(const HandoffKey& key, std::span<const BlockId> blocks) override;
  void source_released(const SourceReleased& released) override;
  void source_failed(const SourceFailed& failed) override;
  void source_refused(const HandoffKey&, Duration) override {}
  void source_sink_lost(const HandoffKey& key, const Error& error, TimePoint now) override;
  void peer_up(WorkerId, std::string_view) override {}
  void peer_lost(WorkerId, const Error&) override {}

 private:
  bool take_blocks(uint32_t n, std::vector<BlockId>& out);
  void give_back(std::span<const BlockId> blocks);
  std::span<std::byte> bytes_of(BlockId block);
  void end_source(const HandoffKey& key);
  void violation(const HandoffKey& key, const std::string& what);

  const WorkerId id_;
  const kvcache::KvLayout layout_;
  const uint32_t num_blocks_;
  SimEvents events_;
  std::unique_ptr<HandoffDriver> driver_;
  std::span<std::byte> cache_;
  std::vector<BlockId> free_;
  std::set<BlockId> used_;
  std::map<HandoffKey, Request> sources_, sinks_, quarantined_;
};

}  // namespace baton::kvtransfer
