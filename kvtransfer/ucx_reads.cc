#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kvtransfer/ucx_transport_impl.h"

// How the UCX transport reads, and answers who reads here.
namespace baton::kvtransfer::ucx {
namespace {

using Kind = TransportEvent::Kind;

// One segment of TCP, so that it is received without another copy; ten layers of 12 KiB.
constexpr uint64_t kReplyBytes = 120u << 10;
constexpr size_t kMaxAhead = 64;  // parts of a read that have overtaken others

// Puts a part of the stream where it belongs. False: it is not a part of it, or was here already.
bool take(NetRead& read, uint64_t at, std::span<const std::byte> bytes) {
  const uint64_t end = at + bytes.size();
  const auto next = read.ahead.lower_bound(at);
  const bool fresh = !bytes.empty() && at >= read.arrived &&
                     (next == read.ahead.end() || end <= next->first) &&
                     (next == read.ahead.begin() || std::prev(next)->second <= at);
  if (!fresh || read.ahead.size() >= kMaxAhead || !scatter(read.stream, at, bytes)) return false;
  read.ahead.emplace(at, end);
  while (!read.ahead.empty() && read.ahead.begin()->first == read.arrived) {
    read.arrived = read.ahead.begin()->second;
    read.ahead.erase(read.ahead.begin());
  }
  return true;
}

}  // namespace

// --- as the reader ------------------------------------------------------------------------------

bool UcxTransport::within(const Peer& peer, const GetOp& op) const {
  const auto at = reinterpret_cast<uint64_t>(op.local) - reinterpret_cast<uint64_t>(memory_.data());
  return lies_within(op.remote_offset, op.bytes, op.count, op.remote_stride, peer.region.bytes) &&
         lies_within(at, op.bytes, op.count, op.local_stride, memory_.size());
}

result<bool> UcxTransport::get(PeerId id, std::span<const GetOp> ops, uint64_t cookie,
                               Answer answer) {
  Peer* peer = find(id);
  if (peer == nullptr || ops.empty() || (peer->mapped == nullptr && ops.size() > kMaxReadRanges)) {
    return error(Errc::kInvalidArgument, fmt::format("get: unknown peer, or {} parts", ops.size()));
  }
  if (peer->lost) return error(Errc::kUnavailable, peer->name + " is lost");
  for (const GetOp& op : ops) {
    if (!within(*peer, op)) {
      return error(Errc::kInvalidArgument,
                   fmt::format("get: {} times {} bytes from {} on are outside the memory of {} or "
                               "ours",
                               op.count, op.bytes, op.remote_offset, peer->name));
    }
  }
  if (peer->mapped != nullptr) {
    for (const GetOp& op : ops) copy_pieces(op, peer->mapped);
    return true;
  }
  const uint64_t read = next_read_++;
  Stream<GetOp> stream({ops.begin(), ops.end()});
  if (answer == Answer::kInTurns) {
    peer->turns.open(read, stream.bytes());
  } else {
    BATON_CHECK_OK(ask(*peer, kReadAm, read, 0, encode_read_request(ops)));
  }
  reads_[read] = {.peer = peer, .cookie = cookie, .answer = answer, .stream = std::move(stream)};
  ask_turns(*peer);
  return false;
}

status UcxTransport::ask(Peer& peer, Am am, uint64_t read, uint64_t at,
                         const std::string& request) {
  const auto bytes = std::as_bytes(std::span(request));
  Sending sending;
  sending.header.read = read;
  sending.header.at = at;
  sending.payload.assign(bytes.begin(), bytes.end());
  return send(peer, am, std::move(sending));
}

// Asks for as much as the window has room for.
void UcxTransport::ask_turns(Peer& peer) {
  while (!peer.lost) {
    const auto turn = peer.turns.next();
    if (!turn) return;
    const status asked = turn->first
                             ? ask(peer, kOpenAm, turn->read, turn->end,
                                   encode_read_request(reads_.at(turn->read).stream.ranges()))
                             : ask(peer, kTurnAm, turn->read, turn->end);
    if (!asked) lose(peer, asked.error().message);
  }
}

void UcxTransport::take_reply(Peer& peer, const Header& header, std::span<const std::byte> bytes) {
  const auto it = reads_.find(header.read);
  if (it == reads_.end() || it->second.peer != &peer) return drop();  // of a read given up
  polled_bytes_ += bytes.size();
  NetRead& read = it->second;
  const bool refused = header.at == kRefused, in_turns = read.answer == Answer::kInTurns;
  const bool fits = refused || ((!in_turns || peer.turns.arrived(header.read, bytes.size())) &&
                                (read.given_up || take(read, header.at, bytes)));
  if (!fits) return lose(peer, peer.name + " sends what it was not asked for");
  const bool done = !refused && !read.given_up && read.arrived == read.stream.bytes();
  if (!read.given_up && (done || refused || in_turns)) {
    events_.push_back({.kind = done      ? Kind::kGetDone
                               : refused ? Kind::kGetFailed
                                         : Kind::kGetProgress,
                       .peer = peer.id,
                       .cookie = read.cookie,
                       .what = refused ? peer.name + " refused the read" : "",
                       .bytes = read.arrived});
  }
  if (done || refused) {
    peer.turns.forget(header.read);
    reads_.erase(it);
  }
  ask_turns(peer);
}

void UcxTransport::give_up(PeerId id, uint64_t cookie) {
  const auto it = std::ranges::find_if(reads_, [&](const auto& entry) {
    const NetRead& read = entry.second;
    return read.peer->id == id && read.cookie == cookie && !read.given_up;
  });
  if (it == reads_.end()) return;
  NetRead& read = it->second;
  Peer& peer = *read.peer;
  events_.push_back({Kind::kGetFailed, id, cookie, {}, "the read was given up"});
  if (read.answer == Answer::kAtOnce || peer.turns.close(it->first)) {
    reads_.erase(it);
  } else {  // what still comes finds no place to be put: nothing but take() writes
    read.given_up = true;
    read.stream = {};
    read.ahead.clear();
    // Which has an answer, behind all that comes of it.
    const status asked = ask(peer, kGiveUpAm, it->first, 0);
    if (!asked) lose(peer, asked.error().message);
  }
  ask_turns(peer);
}

void UcxTransport::end_reads_of(Peer& peer, std::string_view why) {
  std::erase_if(reads_, [&](const auto& entry) {
    const NetRead& read = entry.second;
    if (read.peer != &peer) return false;
    peer.turns.forget(entry.first);
    if (!read.given_up) {
      events_.push_back(
          {Kind::kGetFailed, peer.id, read.cookie, {}, fmt::format("{}: {}", peer.name, why)});
    }
    return true;
  });
}

// An owner that lets go of its connection and makes another may do so unseen from here: it forgets
// what was open, and hears nothing of what is asked for until it has the other. What it may have
// heard after that, it learns to be over from our next message.
void UcxTransport::meet(Peer& peer, uint64_t connection) {
  if (connection <= peer.met) return;
  peer.met = connection;
  end_reads_of(peer, "it has connected anew and knows of no read");
  peer.first_read = next_read_;
}

// --- as the owner -------------------------------------------------------------------------------

// A peer wants ranges of our memory: all at once, or a first turn of them.
void UcxTransport::answer(Peer& peer, Am am, const Header& header,
                          std::span<const std::byte> request) {
  result<std::vector<ReadRange>> ranges =
      decode_read_request(request, endpoint_.region.bytes);  // none, where this side is not read
  if (!ranges) return refuse(peer, header.read);
  auto stream = std::make_shared<const Stream<ReadRange>>(std::move(*ranges));
  if (am == kReadAm) return reply(peer, header.read, stream, 0, stream->bytes());
  const size_t n = stream->ranges().size();
  if (header.read < peer.first_opened || peer.opened.size() >= kMaxOpenReads ||
      peer.opened_ranges + n > kMaxOpenRanges ||
      !peer.opened.try_emplace(header.read, OpenRead{std::move(stream)}).second) {
    return refuse(peer, header.read);
  }
  peer.opened_ranges += n;
  answer_turn(peer, header.read, header.at);
}

// All before byte `end` may be sent.
void UcxTransport::answer_turn(Peer& peer, uint64_t read, uint64_t end) {
  const auto it = peer.opened.find(read);
  if (it == peer.opened.end()) return refuse(peer, read);  // of a former connection, perhaps
  const auto stream = it->second.stream;
  const uint64_t begin = std::exchange(it->second.sent, end);
  const bool sensible = begin < end && end <= stream->bytes();
  if (!sensible || end == stream->bytes()) close_opened(peer, read);
  if (!sensible) return refuse(peer, read);
  reply(peer, read, stream, begin, end);
}

void UcxTransport::answer_give_up(Peer& peer, uint64_t read) {
  close_opened(peer, read);
  refuse(peer, read);
}

void UcxTransport::close_opened(Peer& peer, uint64_t read) {
  const auto it = peer.opened.find(read);
  if (it == peer.opened.end()) return;
  peer.opened_ranges -= it->second.stream->ranges().size();
  peer.opened.erase(it);
}

// A reader that closes its connection and makes another may do so unseen from here.
void UcxTransport::close_opened_before(Peer& peer, uint64_t read) {
  if (read <= peer.first_opened) return;
  peer.first_opened = read;
  std::erase_if(peer.opened, [&](const auto& entry) {
    if (entry.first >= read) return false;
    peer.opened_ranges -= entry.second.stream->ranges().size();
    return true;
  });
}

void UcxTransport::refuse(Peer& peer, uint64_t read) {
  Sending refusal;
  refusal.header.read = read;
  refusal.header.at = kRefused;
  if (const status sent = send(peer, kReplyAm, std::move(refusal)); !sent) {
    lose(peer, sent.error().message);
  }
}

void UcxTransport::reply(Peer& peer, uint64_t read,
                         const std::shared_ptr<const Stream<ReadRange>>& stream, uint64_t begin,
                         uint64_t end) {
  for (uint64_t at = begin; at < end; at += kReplyBytes) {
    Sending part;
    part.header.read = read;
    part.header.at = at;
    part.stream = stream;
    part.bytes = std::min(kReplyBytes, end - at);
    if (const status sent = send(peer, kReplyAm, std::move(part)); !sent) {
      return lose(peer, sent.error().message);
    }
  }
}

}  // namespace baton::kvtransfer::ucx
