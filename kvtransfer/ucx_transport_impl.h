#pragma once

#include <array>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kvtransfer/host_buffer.h"
#include "kvtransfer/read_turns.h"
#include "kvtransfer/ucx_transport.h"
#include "kvtransfer/ucx_worker.h"
#include "kvtransfer/wire_read.h"

struct ucp_rkey;

// The inside of the UCX transport, for its own files: ucx_transport.cc (start, loop, end),
// ucx_peers.cc (connections), ucx_data.cc (messages), ucx_reads.cc (reads).
namespace baton::kvtransfer::ucx {

// Names a transport for the peers that were given its address; drawn at random, so that nobody
// else's message is taken.
using Token = std::array<std::byte, 16>;

// UCX's active messages that we use. Their numbers are part of kProtocolMax (messages.h).
enum Am : unsigned {
  kMessageAm = 1,
  kReadAm = 2,    // these ranges, please, all of them
  kReplyAm = 3,   // bytes of a read
  kOpenAm = 4,    // these ranges, please, up to byte `at` of their stream for now
  kTurnAm = 5,    // and on, up to byte `at`
  kGiveUpAm = 6,  // no further; kRefused follows what is on its way
};

// Before each of them. The same for all protocols.
struct Header {
  Token to{}, from{};
  // Which one. kMessageAm: what its sender reads here begins with this one; what it read before was
  // over another connection, and is over. 0 from those of protocol 3 or less.
  uint64_t read = 0;
  // kReplyAm: where in the stream its bytes begin, or kRefused. kMessageAm: which of its sender's
  // connections it comes over, in ascending order; what was asked for over an earlier one is not
  // known there. 0 likewise.
  uint64_t at = 0;
};
static_assert(sizeof(Header) == 48);
inline constexpr uint64_t kRefused = UINT64_MAX;

class UcxTransport;

// A read of ours that a peer answers in turns.
struct OpenRead {
  std::shared_ptr<const Stream<ReadRange>> stream;
  uint64_t sent = 0;  // bytes of it, handed to UCX
};

struct Peer {
  UcxTransport* owner = nullptr;
  PeerId id;
  std::string name;
  Token token{};
  MemoryRegion region;
  ucp_ep* ep = nullptr;
  // Over shared memory: its region here, and what holds the mapping.
  const std::byte* mapped = nullptr;
  ucp_ep* map_ep = nullptr;
  ucp_rkey* rkey = nullptr;
  void* close_request = nullptr;  // UCX's, while ep is being closed
  bool lost = false, closing = false, ep_closed = false;
  size_t sends = 0, send_bytes = 0;
  ReadTurns turns;                                // of what is read there
  std::unordered_map<uint64_t, OpenRead> opened;  // by the peer, here
  size_t opened_ranges = 0;
  // Reads have ascending numbers. Of this connection are ours from first_read on, and, as far as
  // the peer has told, the peer's from first_opened on.
  uint64_t first_read = 0, first_opened = 0;
  uint64_t met = 0;  // the peer's connection to us that it has spoken over; 0: none that we know

  explicit Peer(const UcxOptions& options)
      : turns(options.read_turn_bytes, options.read_window_bytes) {}
};

// A read over the network.
struct NetRead {
  Peer* peer = nullptr;
  uint64_t cookie = 0;
  Answer answer = Answer::kAtOnce;
  Stream<GetOp> stream;
  uint64_t arrived = 0;                // all before this byte of the stream
  std::map<uint64_t, uint64_t> ahead;  // behind that: begin and end
  bool given_up = false;               // had its event; what still comes for it is not looked at
};

// Something under way; UCX looks at header and content until it is done.
struct Sending {
  Peer* peer = nullptr;
  Header header;
  std::vector<std::byte> payload;
  // A reply has ranges of our memory instead; they are copied when they fit into the network.
  std::shared_ptr<const Stream<ReadRange>> stream;
  size_t bytes = 0;
  std::list<Sending>::iterator self;
};

class UcxTransport final : public Transport {
 public:
  explicit UcxTransport(const UcxOptions& options) : options_(options) {}
  ~UcxTransport() override;
  status start();

  result<std::span<std::byte>> allocate(size_t bytes, Sharing sharing) override;
  const Endpoint& endpoint() const override { return endpoint_; }
  result<PeerId> connect(const Endpoint& remote, std::string_view name) override;
  result<bool> get(PeerId peer, std::span<const GetOp> ops, uint64_t cookie,
                   Answer answer) override;
  void give_up(PeerId peer, uint64_t cookie) override;
  std::span<const std::byte> mapped(PeerId peer) const override;
  status notify(PeerId peer, std::span<const std::byte> payload) override;
  void close(PeerId peer) override;
  bool poll(std::vector<TransportEvent>& events) override;
  int event_fd() const override { return net_->event_fd(); }
  result<bool> arm() override;
  std::string in_force(PeerId peer) const override;
  uint64_t dropped_messages() const override { return dropped_; }

  // --- for UCX's callbacks ---
  void lose(Peer& peer, std::string reason);
  void sent(Sending& sending);
  void received(Am am, const Header& header, std::span<const std::byte> bytes);
  void drop() { ++dropped_; }
  const std::byte* memory() const { return memory_.data(); }

 private:
  status add_shared_memory();
  status start_network(const std::string& tls);
  void publish_address();
  result<std::span<std::byte>> allocate_shared(size_t bytes);
  status open(Peer& peer, const std::string& address);
  status share_memory(Peer& peer, const Endpoint& remote, const std::string& address);
  result<UcxWorker*> find_mapper(const Peer& peer, const std::string& address);
  status map_region(Peer& peer, const std::string& address);
  void unmap_region(Peer& peer);
  status reach(Peer& peer, const Endpoint& remote);
  std::string transport_of(const Peer& peer) const;
  void close_ep(Peer& peer);
  void forget_closed();
  Peer* find(PeerId id) {
    const auto it = peers_.find(id);
    return it == peers_.end() || it->second->closing ? nullptr : it->second.get();
  }

  bool within(const Peer& peer, const GetOp& op) const;
  status ask(Peer& peer, Am am, uint64_t read, uint64_t at, const std::string& request = {});
  void ask_turns(Peer& peer);
  void take_reply(Peer& peer, const Header& header, std::span<const std::byte> bytes);
  void end_reads_of(Peer& peer, std::string_view why);
  void meet(Peer& peer, uint64_t connection);
  void answer(Peer& peer, Am am, const Header& header, std::span<const std::byte> request);
  void answer_turn(Peer& peer, uint64_t read, uint64_t end);
  void answer_give_up(Peer& peer, uint64_t read);
  void close_opened(Peer& peer, uint64_t read);
  void close_opened_before(Peer& peer, uint64_t read);
  void refuse(Peer& peer, uint64_t read);
  void reply(Peer& peer, uint64_t read, const std::shared_ptr<const Stream<ReadRange>>& stream,
             uint64_t begin, uint64_t end);
  status send(Peer& peer, Am am, Sending content);

  const UcxOptions options_;
  std::unique_ptr<UcxWorker> net_;  // for all messages, and reads of other hosts
  // That shares our memory, or those that map the memory of peers of this host; may be none.
  std::vector<std::unique_ptr<UcxWorker>> shm_;
  bool reads_network_ = false;     // else nobody is read but over shared memory
  std::string shared_memory_tls_;  // that were not tried yet, with commas
  uint64_t reply_type_ = 0;        // UCX's data type that gathers a reply
  Token token_{};
  HostBuffer private_memory_;  // where there is no shared memory
  std::span<std::byte> memory_;
  Endpoint endpoint_;
  std::map<PeerId, std::unique_ptr<Peer>> peers_;
  std::map<Token, PeerId> by_token_;
  std::unordered_map<uint64_t, NetRead> reads_;
  std::list<Sending> sends_;
  std::vector<TransportEvent> events_;  // until poll() hands them out
  uint64_t next_peer_ = 1, next_read_ = 1;
  uint64_t dropped_ = 0;
  uint64_t polled_bytes_ = 0;  // of replies, by the poll() that runs
  bool ending_ = false;        // nobody is left to wait for
};

// UCX's receive handlers for all Am, on `worker`.
status add_handlers(UcxWorker& worker, UcxTransport& transport);
// UCX's data type whose content is a Sending with ranges; 0: none. Ended by drop_reply_type().
uint64_t make_reply_type();
void drop_reply_type(uint64_t type);

// One string out of what peers need to reach either UCX worker; `shared_memory` may be empty.
struct Address {
  Token token{};
  std::string shared_memory, network;
};
std::string encode(const Address& address);
result<Address> decode_address(std::string_view bytes);

}  // namespace baton::kvtransfer::ucx
