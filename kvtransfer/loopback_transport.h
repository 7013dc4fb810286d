#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

// What goes wrong, how often. Probabilities in [0, 1].
struct LoopbackFaults {
  double drop_message = 0;
  double duplicate_message = 0;
  double fail_get = 0;
  double corrupt_get = 0;    // one byte of it is changed
  Duration message_delay{};  // each waits a random time up to this: messages overtake each other
  bool mapped = false;       // peers' memory can be read directly, and then nothing befalls it
  Duration get_delay{};      // likewise; the bytes are copied when it ends, whatever they are then
};

// Transports of one process, connected by memory copies: for tests and for the simulator. Time
// stands still unless advanced; without delays nothing needs it. Thread-safe; each transport is
// still used by one thread at a time. A paused process is one whose transport nobody polls.
class LoopbackHub {
 public:
  virtual ~LoopbackHub() = default;  // after all its transports
  // One process. Its destruction is a death that is not reported.
  virtual std::unique_ptr<Transport> make_transport(std::string host) = 0;

  virtual void set_faults(const LoopbackFaults& faults) = 0;
  // Delayed things up to `now` become visible to poll().
  virtual void advance(TimePoint now) = 0;
  // When the next delayed thing is due; TimePoint::max() if nothing waits.
  virtual TimePoint next_event() const = 0;

  // The process of this endpoint is dead: it sends and receives nothing, reads of its memory fail.
  // With `reported`, its peers get kPeerLost, else they hear nothing.
  virtual void kill(const Endpoint& endpoint, bool reported) = 0;
  // Nothing passes between the two: messages are lost, reads end only with close().
  virtual void cut(const Endpoint& a, const Endpoint& b, bool cut) = 0;
};
std::unique_ptr<LoopbackHub> make_loopback_hub(uint64_t seed = 1);

}  // namespace baton::kvtransfer
