#pragma once

#include <sys/types.h>

#include <string>

#include "kvtransfer/messages.h"

namespace baton::kvtransfer {

// The program kvtransfer_peer (peer_process.cc), as a test talks to it. Killed at the end, whatever
// happened.
class Peer {
 public:
  // `timers`: "LEASE_MS PEER_TIMEOUT_MS" of its own, or none.
  Peer(const std::string& tls, uint64_t id, const std::string& timers = "");
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void say(const std::string& line);
  // The next line; empty after five seconds or at the end.
  std::string hear();
  // SIGKILL also waits for its end.
  void kill(int signal);
  int fd() const { return from_; }  // readable when there is something to hear
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
  int to_ = -1, from_ = -1;
};

}  // namespace baton::kvtransfer
