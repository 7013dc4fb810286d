#pragma once

#include <string>

#include "kvtransfer/messages.h"
#include "tests/fakes/talking_child.h"

namespace baton::kvtransfer {

// The program kvtransfer_peer (peer_process.cc), as a test talks to it.
class Peer : public fakes::TalkingChild {
 public:
  // `timers`: "LEASE_MS PEER_TIMEOUT_MS" of its own, or none.
  Peer(const std::string& tls, uint64_t id, const std::string& timers = "");
};

}  // namespace baton::kvtransfer
