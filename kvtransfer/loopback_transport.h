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
  double torn_get = 0;       // only a part of it is read, though it says that it is done
  Duration message_delay{};  // each waits a random time up to this: messages overtake each other
  bool mapped = false;       // peers' memory can be read directly, and then nothing befalls it
  Duration get_delay{};      // likewise; the bytes are copied when it ends, whatever they are then
  uint64_t turn_bytes = UINT64_MAX;  // of a get in turns: each is copied after a delay of its own
};

// How often that was.
struct LoopbackCounts {
  uint64_t dropped = 0, doubled = 0, delayed = 0;
  uint64_t late_gets = 0, failed_gets = 0, corrupted_gets = 0, torn_gets = 0;
};

// Transports of one process, connected by memory copies: for tests and for the simulator. Time
// stands still unless advanced; without delays nothing needs it. Thread-safe; each transport is
// still used by one thread at a time. A paused process is one whose transport nobody polls.
class LoopbackHub {
 public:
  virtual ~LoopbackHub() = default;  // after all its transports
  // One process. Its destruction is a death that is not reported.
  virtual std::unique_ptr<Transport> make_transport(std::string host) = 0;
  // Another process at the address of one that is dead; its memory is new. What the dead one was
  // sent, or sends late, does not pass for this one's.
  virtual std::unique_ptr<Transport> make_transport_at(const Endpoint& former) = 0;

  virtual void set_faults(const LoopbackFaults& faults) = 0;
  // Delayed things up to `now` become visible to poll().
  virtual void advance(TimePoint now) = 0;
  // When the next delayed thing is due; TimePoint::max() if nothing waits.
  virtual TimePoint next_event() const = 0;

  // The process of this endpoint is dead: it sends and receives nothing, reads of its memory fail.
  // With `reported`, its peers get kPeerLost, else they hear nothing.
  virtual void kill(const Endpoint& endpoint, bool reported) = 0;
  // Nothing passes between the two: messages are lost, reads wait until it is over, or for close().
  virtual void cut(const Endpoint& a, const Endpoint& b, bool cut) = 0;
  // Every get of this byte of its memory reads another one, until it is mended; its owner does not.
  virtual void damage(const Endpoint& endpoint, uint64_t offset, bool damaged) = 0;
  virtual LoopbackCounts counts() const = 0;
};
std::unique_ptr<LoopbackHub> make_loopback_hub(uint64_t seed = 1);

}  // namespace baton::kvtransfer
