#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "kvtransfer/transport.h"
#include "kvtransfer/ucx_transport.h"

// What reads of KV really reach, by the transport that workers use.
namespace baton::doctor {

struct LinkFound {
  std::string transport;  // that is in force: "sysv", "tcp", "rc_mlx5"
  std::string software;   // "ucx 1.13"
  double bytes_per_second = 0;
  Duration latency{};  // of a small read, median
};

// Memory that others read. Answers them on a thread of its own until it is destroyed.
class ReadSide {
 public:
  static result<std::unique_ptr<ReadSide>> start(const kvtransfer::UcxOptions& options,
                                                 size_t bytes);
  ~ReadSide();
  ReadSide(const ReadSide&) = delete;
  ReadSide& operator=(const ReadSide&) = delete;

  const kvtransfer::Endpoint& endpoint() const { return endpoint_; }
  // Lets that one read, from the moment it returns. By one thread at a time; blocks for
  // milliseconds. kResourceExhausted: kMostReaders do already.
  status welcome(const kvtransfer::Endpoint& reader, const std::string& name);

  static constexpr size_t kMostReaders = 16;

 private:
  explicit ReadSide(std::unique_ptr<kvtransfer::Transport> transport);
  void answer();
  status connect(const kvtransfer::Endpoint& reader, std::vector<kvtransfer::PeerId>& peers);

  std::unique_ptr<kvtransfer::Transport> transport_;  // the thread's
  kvtransfer::Endpoint endpoint_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
  // What the thread is asked to do, and how it went.
  std::mutex mutex_;
  std::condition_variable asked_;
  const kvtransfer::Endpoint* newcomer_ = nullptr;
  std::string newcomer_name_;
  std::optional<status> welcomed_;
};

// Who reads: gets the owner's endpoint for its own, by `meet`, and reads for about `time`. Blocks;
// kDeadlineExceeded where nothing comes for 10 s.
using Meet = std::function<result<kvtransfer::Endpoint>(const kvtransfer::Endpoint& mine)>;
result<LinkFound> measure_reads(const kvtransfer::UcxOptions& options, size_t bytes, Duration time,
                                const Meet& meet);

// Both in this process.
result<LinkFound> measure_here(const kvtransfer::UcxOptions& options, size_t bytes, Duration time);

}  // namespace baton::doctor
