#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "common/net/tcp_connection.h"

namespace baton::net {

using boost::system::error_code;

namespace {

constexpr size_t kStepBytes = size_t{64} << 10;  // read without knowing that they come
constexpr size_t kMaxReasonBytes = 200;          // of a refusal, in messages
constexpr size_t kKeptBytes = size_t{1} << 20;   // of the buffer, between small frames

// A stranger's words, for the log: it must not write lines of its own there.
std::string one_line(const std::string& text) {
  std::string line = text.substr(0, kMaxReasonBytes);
  std::ranges::replace_if(
      line, [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
  return line;
}

}  // namespace

TcpConnection::TcpConnection(tcp::socket socket, std::string peer, RpcOptions options)
    : wire_(std::move(socket)),
      timer_(wire_.socket().get_executor()),
      peer_(std::move(peer)),
      options_(options) {
  error_code ignored;  // a socket without it is slower, not wrong
  wire_.socket().set_option(tcp::no_delay(true), ignored);
}

void TcpConnection::set_handlers(Handlers handlers) {
  handlers_ = std::make_shared<const Handlers>(std::move(handlers));
  if (started_ || auth_ || state_ == State::kClosed) return;
  start();
  start_pings();
}

void TcpConnection::start() {
  started_ = true;
  last_heard_ = Clock::now();
  read_header();
}

void TcpConnection::start_pings() {
  timer_.expires_after(options_.ping_every);
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec) self->on_timer();
  });
}

void TcpConnection::read_header() {
  wire_.async_read(boost::asio::buffer(header_),
                   [self = shared_from_this()](error_code ec, size_t) {
                     if (ec) return self->fail(self->with_peer(self->wire_.why(ec)));
                     self->take_header();
                   });
}

void TcpConnection::take_header() {
  if (!greeted_ && !wire_.is_secure() && begins_tls(header_.data())) {
    return refuse(error(Errc::kPermissionDenied, "it speaks TLS, and no certificate is set here"),
                  Refusal::kTls);
  }
  const auto length = parse_frame_header(header_, greeted_ ? kMaxFrameBytes : kMaxHelloBytes);
  if (!length) {
    return fail(error(length.error().code, peer_ + " sent a " + length.error().message),
                Refusal::kMalformed);
  }
  // A big buffer is given back.
  if (body_.capacity() > kKeptBytes && *length < kStepBytes) body_ = {};
  body_.clear();
  read_body(*length);
}

// The buffer follows the bytes that really came, whatever the header announces.
void TcpConnection::read_body(uint32_t length) {
  const size_t have = body_.size();
  const size_t room = std::max({2 * have, kStepBytes, body_.capacity()});
  body_.resize(std::min<size_t>(length, room));
  wire_.async_read(boost::asio::buffer(body_) + have,
                   [self = shared_from_this(), length](error_code ec, size_t) {
                     if (ec) return self->fail(self->with_peer(self->wire_.why(ec)));
                     self->body_.size() < length ? self->read_body(length) : self->take_body();
                   });
}

void TcpConnection::take_body() {
  auto frame = parse_frame_body(body_);
  if (!frame) {
    return fail(error(frame.error().code, peer_ + " sent a " + frame.error().message),
                Refusal::kMalformed);
  }
  take_frame(std::move(*frame));
  if (state_ != State::kClosed) read_header();
}

void TcpConnection::take_frame(proto::Frame&& frame) {
  if (refused_) return;
  if (!greeted_ && frame.has_auth_refused()) {  // proven or not
    return fail(error(Errc::kPermissionDenied,
                      peer_ + " refuses us: " + one_line(frame.auth_refused().reason())));
  }
  if (auth_) {
    if (const status step = step_auth(frame); !step) {
      refuse(step.error(), frame.has_auth_hello() || frame.has_auth_proof() ? Refusal::kWrongSecret
                                                                            : Refusal::kNoSecret);
    }
    return;
  }
  last_heard_ = Clock::now();
  if (!greeted_ && frame.has_auth_hello()) {
    return refuse(error(Errc::kPermissionDenied, "no secret is set here"), Refusal::kNoSecret);
  }
  if (frame.has_ping()) {
    proto::Frame reply;
    reply.mutable_pong()->set_sequence(frame.ping().sequence());
    if (state_ == State::kOpen) (void)send(reply);  // a failure closes us, and that is told
    return;
  }
  if (frame.has_pong()) return;
  greeted_ = true;
  const auto handlers = handlers_;
  if (handlers && handlers->on_frame) handlers->on_frame(std::move(frame));
}

void TcpConnection::prove(bool dialled, std::function<void()> proven) {
  auth_ = std::make_unique<Auth>();
  auth_->proven = std::move(proven);
  timer_.expires_after(options_.connect_timeout);
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || !self->auth_) return;
    self->fail(error(Errc::kDeadlineExceeded, self->peer_ + ": did not prove itself in time"),
               Refusal::kTimeout);
  });
  options_.tls ? shake_hands(dialled) : prove_secret(dialled);
}

void TcpConnection::shake_hands(bool dialled) {
  wire_.shake_hands(*options_.tls, dialled, [self = shared_from_this(), dialled](const status& ok) {
    if (self->state_ != State::kOpen) return;
    if (ok) return self->prove_secret(dialled);
    if (!self->wire_.peer_knows_no_tls()) {  // it has an alert that says why
      return self->fail(self->with_peer(ok.error()), Refusal::kTls);
    }
    self->wire_.speak_plainly();
    self->refuse(ok.error(), Refusal::kTls);
  });
}

void TcpConnection::prove_secret(bool dialled) {
  if (options_.secrets.empty()) return end_auth();
  auto nonce = random_nonce();
  if (!nonce) return fail(nonce.error());
  auto binding = wire_.channel_binding();
  if (!binding) return fail(binding.error());
  start();
  if (!dialled) {
    auth_->listener.emplace(options_.secrets, *nonce, std::move(*binding));
    return;
  }
  auth_->dialler.emplace(options_.secrets, *nonce, std::move(*binding));
  proto::Frame frame;
  *frame.mutable_auth_hello() = auth_->dialler->hello();
  (void)send(frame);  // a failure closes us, and that is told
}

status TcpConnection::step_auth(const proto::Frame& frame) {
  proto::Frame reply;
  if (auth_->dialler && frame.has_auth_challenge()) {
    BATON_TRY(*reply.mutable_auth_proof(), auth_->dialler->answer(frame.auth_challenge()));
    BATON_CHECK_OK(send(reply));
    end_auth();
    return {};
  }
  if (auth_->listener && frame.has_auth_hello()) {
    BATON_TRY(*reply.mutable_auth_challenge(), auth_->listener->challenge(frame.auth_hello()));
    return send(reply);
  }
  if (auth_->listener && frame.has_auth_proof()) {
    BATON_CHECK_OK(auth_->listener->check(frame.auth_proof()));
    end_auth();
    return {};
  }
  return error(Errc::kPermissionDenied, "the secret must be proven first");
}

void TcpConnection::end_auth() {
  const std::unique_ptr<Auth> auth = std::move(auth_);
  last_heard_ = Clock::now();
  if (!started_) start();
  start_pings();
  auth->proven();
}

// Tells the other side why, and ends.
void TcpConnection::refuse(const Error& why, Refusal refusal) {
  if (state_ != State::kOpen) return;
  auth_.reset();
  refusal_ = refusal;
  proto::Frame frame;
  frame.mutable_auth_refused()->set_reason(why.message);
  (void)send(frame);
  refused_ = error(why.code, peer_ + " is refused: " + why.message);
  close();
}

status TcpConnection::send(const proto::Frame& frame) {
  if (state_ != State::kOpen) return error(Errc::kUnavailable, peer_ + ": connection is closed");
  BATON_CHECK_OK(append_frame(frame, pending_));
  if (pending_.size() > options_.max_queued_bytes) {
    const Error why = error(Errc::kResourceExhausted,
                            peer_ + " reads too slowly: over " +
                                std::to_string(options_.max_queued_bytes) + " bytes wait for it");
    fail(why);
    return why;
  }
  if (in_flight_.empty()) write_pending();
  return {};
}

void TcpConnection::write_pending() {
  std::swap(in_flight_, pending_);
  pending_.clear();
  wire_.async_write(boost::asio::buffer(in_flight_),
                    [self = shared_from_this()](error_code ec, size_t) {
                      self->in_flight_.clear();
                      if (ec) return self->fail(self->with_peer(self->wire_.why(ec)));
                      if (!self->pending_.empty()) return self->write_pending();
                      if (self->state_ == State::kDraining) {
                        self->fail(error(Errc::kCancelled, self->peer_ + ": closed by us"));
                      }
                    });
}

void TcpConnection::on_timer() {
  if (state_ == State::kClosed) return;
  if (state_ == State::kDraining) {
    return fail(error(Errc::kDeadlineExceeded, peer_ + ": did not take the last messages"));
  }
  if (Clock::now() - last_heard_ > options_.silent_after) {
    return fail(error(Errc::kUnavailable, peer_ + ": silent for too long"));
  }
  proto::Frame ping;
  ping.mutable_ping()->set_sequence(++ping_sequence_);
  if (!send(ping)) return;
  start_pings();
}

void TcpConnection::close() {
  if (state_ != State::kOpen) return;
  state_ = State::kDraining;
  if (in_flight_.empty()) return fail(error(Errc::kCancelled, peer_ + ": closed by us"));
  timer_.expires_after(seconds(1));
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec) self->on_timer();
  });
}

void TcpConnection::give_way() {
  fail(error(Errc::kResourceExhausted, peer_ + ": made room for another, too many are connected"),
       Refusal::kTooMany);
}

Error TcpConnection::with_peer(const Error& why) const {
  return error(why.code, peer_ + ": " + why.message);
}

// Who has proven itself, or need not, is not refused any more.
void TcpConnection::fail(Error why, Refusal refusal) {
  if (auth_ && !refusal_) refusal_ = refusal;
  fail(std::move(why));
}

void TcpConnection::fail(Error why) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  timer_.cancel();
  if (auth_ && !refusal_) refusal_ = Refusal::kGone;
  auth_.reset();
  if (refused_) why = *refused_;
  wire_.close();
  boost::asio::post(wire_.socket().get_executor(),
                    [self = shared_from_this(), why = std::move(why)] {
                      const auto told = std::exchange(self->told_, nullptr);
                      if (told && self->refusal_) told(*self->refusal_, why);
                      const auto handlers = std::exchange(self->handlers_, nullptr);
                      if (handlers && handlers->on_close) handlers->on_close(why);
                    });
}

}  // namespace baton::net
