#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "kvtransfer/endpoint.h"
#include "kvtransfer/host_buffer.h"

namespace baton::kvtransfer {

// A connected peer, as this transport numbers it; never used twice.
using PeerId = StrongId<struct PeerIdTag, uint64_t>;

// One descriptor of a read: `count` pieces of `bytes` each, a stride from each other on both sides.
struct GetOp {
  uint64_t remote_offset = 0;  // bytes from the start of the peer's region
  std::byte* local = nullptr;  // within memory of allocate()
  uint64_t bytes = 0;
  uint64_t count = 1;
  uint64_t remote_stride = 0, local_stride = 0;  // bytes; no matter where there is one piece

  uint64_t total_bytes() const { return count * bytes; }
};

// Whether all of [offset + i * stride, + bytes), i < count, lie within a region of `region_bytes`.
// False also if the pieces overlap, or nothing is asked for. For any values: nothing overflows.
inline bool lies_within(uint64_t offset, uint64_t bytes, uint64_t count, uint64_t stride,
                        uint64_t region_bytes) {
  if (bytes == 0 || count == 0) return false;
  if (offset > region_bytes || bytes > region_bytes - offset) return false;
  if (count == 1) return true;
  return stride >= bytes && count - 1 <= (region_bytes - offset - bytes) / stride;
}

// Copies all of `op` out of the peer's region, which lies at `region` here.
inline void copy_pieces(const GetOp& op, const std::byte* region) {
  for (uint64_t i = 0; i < op.count; ++i) {
    std::memcpy(op.local + i * op.local_stride, region + op.remote_offset + i * op.remote_stride,
                op.bytes);
  }
}

struct TransportEvent {
  enum class Kind : uint8_t {
    kMessage,      // `payload` came from `peer`
    kGetProgress,  // the first `bytes` of the get `cookie`, piece after piece, have arrived
    kGetDone,      // all of the get `cookie` has arrived
    kGetFailed,    // it will not; part of it may have. `what` says why
    kPeerLost,     // nothing more will come; close() it. `what` says why
    kClosed,       // close() is complete: no get of this peer touches local memory any more
  };
  Kind kind = Kind::kMessage;
  PeerId peer;
  uint64_t cookie = 0;
  std::vector<std::byte> payload;
  std::string what;
  uint64_t bytes = 0;
};

// How the owner of what is read answers over the network.
enum class Answer : uint8_t {
  kAtOnce,   // all of a get before what is asked for later: the reader asks for little at a time
  kInTurns,  // a bit of each get that is open, and never more than the reader keeps up with; the
             // owner speaks kProtocolTurns (messages.h)
};

// Moves bytes between workers. There is no way to write into a peer's memory. All calls come from
// one thread (the control thread), and none blocks except allocate() and connect(), for
// milliseconds. Events come out of poll() only.
class Transport {
 public:
  virtual ~Transport() = default;

  // Memory that peers may read and that gets may fill, zeroed, page-aligned; owned by the transport
  // and valid until its destruction. Once, before endpoint() is handed out. kResourceExhausted.
  virtual result<std::span<std::byte>> allocate(size_t bytes, Sharing sharing) = 0;

  // What a peer needs to connect() here.
  virtual const Endpoint& endpoint() const = 0;

  // Connects to a peer; `name` is for logs. Both sides must connect: messages from a peer that is
  // not connected here are dropped and counted. The first message over a connection ends, at the
  // peer, all reads of either side that an earlier one has left: it may not have seen that end. A
  // peer that cannot be reached may show only
  // later, or, where no connection says so, never: callers watch for silence. kUnavailable,
  // kInvalidArgument.
  virtual result<PeerId> connect(const Endpoint& remote, std::string_view name) = 0;

  // Reads all of `ops`. True: everything is here already, and no event follows. False: exactly one
  // kGetDone or kGetFailed with `cookie` follows, before kClosed; kInTurns may have kGetProgress
  // before. Reads outside the peer's region or of an unknown peer are kInvalidArgument;
  // kUnavailable: the peer is lost. After an error, no event follows and local memory is not
  // touched any more.
  virtual result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                           Answer answer) = 0;

  // Nobody wants that get any more: what has not been sent will not be, and its event, if it has
  // not come yet, comes soon. Until then, local memory may still be written.
  virtual void give_up(PeerId peer, uint64_t cookie) = 0;

  // The peer's region as it can be read here directly, for a reader that wants to do more than
  // copy; its owner may change it at any time. Valid until kClosed; empty if there is no such way.
  virtual std::span<const std::byte> mapped(PeerId peer) const = 0;

  // Sends a message of at most kMaxMessageBytes; copied before this returns. kResourceExhausted:
  // the peer does not take what is already queued, treat it as lost.
  virtual status notify(PeerId peer, std::span<const std::byte> payload) = 0;

  // Gives the peer up. Pending gets end with their event, then kClosed comes.
  virtual void close(PeerId peer) = 0;

  // Makes progress and appends what happened. True: there may be more at once, call again before
  // arm().
  virtual bool poll(std::vector<TransportEvent>& events) = 0;

  // Readable when poll() has something to do, provided that arm() said true after the last poll().
  virtual int event_fd() const = 0;
  // True: wait for event_fd(). False: something happened in between, poll() again.
  virtual result<bool> arm() = 0;

  // How reads from this peer really travel: "sysv", "posix", "tcp", "rc_mlx5", "loopback"; "none":
  // it is not read. "?" for an unknown peer.
  virtual std::string in_force(PeerId peer) const = 0;

  // Messages dropped because their sender is not connected here, or because they were too long.
  virtual uint64_t dropped_messages() const = 0;
};

}  // namespace baton::kvtransfer
