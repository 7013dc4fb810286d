#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/collective/collective.h"
#include "common/engine/rank_loop.h"
#include "common/proto/rank.pb.h"
#include "worker/rank_channel.h"

namespace baton::worker {

// The other ranks of a worker, as its first rank sees them: child processes of this same program
// (rank_process.h), each with a part of the model and of the cache. One scheduler, one engine, one
// transport: those are the first rank's; the others are told of each step. A rank that ends takes
// the worker with it, and the worker's end is theirs.
class RankGroup final : public engine::RankSteps {
 public:
  // Starts the ranks 1 to setup.size() - 1 and connects all of them; blocks for as long as
  // processes take to start. They go on to load the model. Errors name the rank.
  // `device` is the first rank's and outlives this.
  static result<std::unique_ptr<RankGroup>> start(const proto::RankSetup& setup,
                                                  device::Device& device);
  ~RankGroup() override;  // ends them, by force where they do not count any more; waits for that

  // Of the first rank. Lives as long as this.
  collective::Collective& collective() { return *collective_; }

  // Waits until each has loaded the model.
  status await_loaded();
  // Has each attach the cache; then they wait for steps.
  status attach(const proto::RankCache& cache);

  // `lost` is called, once, on the loop's thread when a rank ends; why_lost() says why.
  // kIo.
  status watch(boost::asio::io_context& io, std::function<void()> lost);
  // Which rank has ended, and how; waits a little for one to end. None: `otherwise`. Of several,
  // one that something else has ended, not one that missed it.
  Error why_lost(const Error& otherwise);

  status tell(const engine::StepBatch& batch) override;

 private:
  struct Rank {
    uint32_t number = 0;
    pid_t pid = -1;
    RankChannel channel;
    std::unique_ptr<boost::asio::posix::stream_descriptor> watched;
    std::string ended;         // how, in words
    std::optional<Error> why;  // and all that is known of it
  };

  status spawn(const proto::RankSetup& setup, uint32_t number);
  result<std::vector<std::string>> exchange(const std::string& mine);
  status await_ready(milliseconds patience);
  Error about(const Rank& rank, const Error& why) const;
  const Error& ended(Rank& rank);
  void watch(Rank& rank);

  uint32_t size_ = 0;
  std::vector<std::unique_ptr<Rank>> ranks_;  // 1 and above
  std::unique_ptr<collective::Collective> collective_;
  std::function<void()> lost_;
  std::vector<std::byte> step_;  // scratch of tell()
};

}  // namespace baton::worker
