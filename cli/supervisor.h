#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cli/process.h"
#include "common/base/clock.h"

namespace baton::cli {

// Keeps child processes alive: starts them, tells when each serves, starts one that died again
// (with growing pauses: restart_pause.h), ends them in order. Runs on one io_context's thread.
class Supervisor {
 public:
  // What a child said on its ready line: {"rpc": 7001, "metrics": 7002, ...}
  using Ports = std::map<std::string, uint16_t>;
  struct Spec {
    std::string name;
    // Arguments for the next start; `last` holds the ports of the one before (empty at first), so
    // that a restarted worker is found where it was.
    std::function<std::vector<std::string>(const Ports& last)> args;
    std::function<void(const Ports&)> on_ready;
  };

  // `on_fatal`: a child ended before it ever served.
  Supervisor(boost::asio::io_context& io, std::function<void(const std::string& why)> on_fatal);
  ~Supervisor();

  // Index of the child, in order of adding.
  size_t add(Spec spec);
  // Sends SIGTERM to one child and waits for its end, `grace` at most, then SIGKILL. It is not
  // started again. `done` is called once it is gone.
  void stop(size_t index, Duration grace, std::function<void()> done);
  // Children that are told to stop and have not: at once, please.
  void hurry();

 private:
  struct Entry;
  void start(const std::shared_ptr<Entry>& entry);
  void read_ready(const std::shared_ptr<Entry>& entry);
  void wait_for_children();
  void ended(const std::shared_ptr<Entry>& entry, int wait_status);

  boost::asio::io_context& io_;
  boost::asio::signal_set child_signal_;
  std::function<void(const std::string&)> on_fatal_;
  std::vector<std::shared_ptr<Entry>> entries_;
};

}  // namespace baton::cli
