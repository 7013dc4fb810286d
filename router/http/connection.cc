#include "router/http/connection.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/log.h"
#include "router/http/head.h"
#include "router/http/request_parser.h"
#include "router/openai/error.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 8192;
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;  // read ahead while an answer is under way
constexpr size_t kMaxDiscardedBytes = size_t{1} << 20;   // of a body that is not wanted
constexpr size_t kMaxBytesAtOnce = size_t{16} << 10;     // of events that are copied to be sent
constexpr size_t kMaxKeptBytes = size_t{32} << 10;       // of a buffer that has been sent
constexpr Duration kLinger = seconds(2);
constexpr TimePoint kNever = TimePoint::max();

using Buffers = std::array<asio::const_buffer, 3>;

// What one slow moment of a client made large is not kept for the connection's life.
void release(std::string& sent) {
  sent.clear();
  if (sent.capacity() > kMaxKeptBytes) sent.shrink_to_fit();
}

class HttpConnection final : public Connection,
                             public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(tcp::socket socket, std::shared_ptr<HttpShared> shared)
      : socket_(std::move(socket)),
        wake_(socket_.get_executor(), kNever),
        shared_(std::move(shared)) {
    error_code failed;
    const tcp::endpoint peer = socket_.remote_endpoint(failed);
    if (!failed) peer_ = fmt::format("{}:{}", peer.address().to_string(), peer.port());
    socket_.non_blocking(true, failed);
    shared_->connections.insert(this);
  }
  ~HttpConnection() override {
    shared_->connections.erase(this);
    if (shared_->on_fewer) shared_->on_fewer();
  }

  asio::awaitable<void> run() {
    bool keep = true;
    while (keep && !shared_->no_more && !shared_->closed) keep = co_await serve_one();
    error_code ignored;
    socket_.close(ignored);
  }

  void check_deadline(TimePoint now) override {
    if (now < deadline_) return;
    deadline_ = kNever;
    timed_out_ = true;
    error_code ignored;
    socket_.cancel(ignored);
  }
  void drain() override {
    if (idle_) close();
  }
  void abort(const ApiError& why) override {
    if (const auto exchange = answering_.lock()) exchange->abort(why);
  }
  void close() override {
    error_code ignored;
    socket_.close(ignored);
    wake_.cancel();
  }

 private:
  // --- one request ---

  // False: the connection is over.
  asio::awaitable<bool> serve_one() {
    if (!co_await wait_for_request()) co_return false;
    RequestParser parser(shared_->options);
    set_deadline(shared_->options.header_timeout);
    const TimePoint received = Clock::now();
    while (!parser.is_header_done()) {
      if (const error_code failed = co_await read_more(parser)) {
        co_return co_await refuse_unread(failed, "the header", received);
      }
    }
    HttpHead head = make_head(parser.get(), peer_, received, *shared_);
    if (auto reply = check_header(parser.get())) {
      co_return co_await answer_early(parser, std::move(head), std::move(*reply), false);
    }
    if (shared_->closed) co_return false;
    if (auto reply = shared_->handlers.gate(head)) {
      co_return co_await answer_early(parser, std::move(head), std::move(*reply),
                                      parser.keep_alive());
    }
    if (!co_await read_body(parser, received)) co_return false;
    co_return co_await answer(parser, std::move(head));
  }

  // Waits for the first byte of a request, as long as a kept connection may idle.
  asio::awaitable<bool> wait_for_request() {
    if (buffer_.size() > 0) co_return true;
    idle_ = true;
    set_deadline(shared_->options.idle_timeout);
    auto [failed, bytes] = co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    idle_ = false;
    buffer_.commit(bytes);
    co_return !failed;
  }

  // One step on: what is here already, or comes next, goes to the parser.
  asio::awaitable<error_code> read_more(RequestParser& parser) {
    error_code failed = make_error_code(http::error::need_more);
    if (buffer_.size() > 0) buffer_.consume(parser.take(buffer_.data(), failed));
    if (failed != http::error::need_more) co_return failed;
    auto [broken, bytes] = co_await socket_.async_read_some(buffer_.prepare(kReadBytes), kAwait);
    buffer_.commit(bytes);
    if (broken != asio::error::eof) co_return broken;
    co_return make_error_code(parser.got_some() ? http::error::partial_message
                                                : http::error::end_of_stream);
  }

  // True if the whole body is there; else the connection is over.
  asio::awaitable<bool> read_body(RequestParser& parser, TimePoint received) {
    if (parser.is_done()) co_return true;
    set_deadline(shared_->options.body_timeout);
    if (parser.get()[http::field::expect].size() > 0) {
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      auto [failed, bytes] = co_await asio::async_write(socket_, asio::buffer(kContinue), kAwait);
      if (failed) co_return false;
    }
    while (!parser.is_done()) {
      if (const error_code failed = co_await read_more(parser)) {
        co_return co_await refuse_unread(failed, "the body", received);
      }
    }
    co_return true;
  }

  // The request could not be read: says why where the client can still hear it.
  asio::awaitable<bool> refuse_unread(error_code failed, std::string_view part,
                                      TimePoint received) {
    std::optional<ApiError> error =
        read_error(failed, std::exchange(timed_out_, false), part, shared_->options);
    if (!error || shared_->closed) co_return false;
    HttpHead head;
    head.method = head.path = "-";
    head.peer = peer_;
    head.received = received;
    head.request_id = make_request_id(*shared_);
    Exchange exchange(std::move(head), 0);
    exchange.reply({.status = error->status, .body = error_body(*error), .reason = "unreadable"});
    co_await write_reply(exchange, /*keep=*/false, /*with_body=*/true);
    co_await linger();
    co_return false;
  }

  // An answer that did not need the body. A small body that is announced is read and dropped, so
  // that the connection can be kept.
  asio::awaitable<bool> answer_early(RequestParser& parser, HttpHead head, HttpReply reply,
                                     bool keep) {
    const bool expects = parser.get()[http::field::expect].size() > 0;
    const auto left = parser.content_length_remaining();
    keep = keep && (parser.is_done() || (!expects && left && *left <= kReadBytes));
    if (keep && !parser.is_done()) {
      set_deadline(shared_->options.body_timeout);
      while (keep && !parser.is_done()) keep = !co_await read_more(parser);
    }
    const bool with_body = head.method != "HEAD";
    Exchange exchange(std::move(head), 0);
    exchange.reply(std::move(reply));
    keep = co_await write_reply(exchange, keep, with_body);
    if (!keep) co_await linger();
    co_return keep;
  }

  asio::awaitable<bool> answer(RequestParser& parser, HttpHead head) {
    const bool keep = parser.keep_alive();
    const bool chunked = parser.get().version() >= 11;
    const bool with_body = head.method != "HEAD";
    const auto exchange =
        std::make_shared<Exchange>(std::move(head), shared_->options.max_pending_bytes);
    shared_->handlers.handle(std::move(parser.get().body()), exchange);
    if (exchange->complete() && !exchange->streaming()) {
      co_return co_await write_reply(*exchange, keep, with_body);
    }
    exchange->on_ready([this, raw = exchange.get()] {
      // A write to a client that reads too slowly would be waited for in vain.
      if (raw->gone() == Exchange::Gone::kTooSlow) return close();
      if (!write_at_once(*raw)) wake_.cancel();
    });
    answering_ = exchange;
    watch(exchange);
    const bool kept = co_await write_answer(exchange, keep, with_body, chunked);
    exchange->on_ready(nullptr);
    co_await stop_watching();
    if (flooded_ && watch_ok_) co_await linger();
    co_return kept&& watch_ok_ && !flooded_;
  }

  // Until the answer is complete and sent, or the client gone.
  asio::awaitable<bool> write_answer(std::shared_ptr<Exchange> exchange, bool keep, bool with_body,
                                     bool chunked) {
    set_deadline(std::nullopt);
    while (!exchange->complete() && !exchange->has_pending() &&
           exchange->gone() == Exchange::Gone::kNo && !shared_->closed && socket_.is_open()) {
      co_await wake_.async_wait(kAwait);
    }
    if (exchange->gone() == Exchange::Gone::kNo && exchange->streaming()) {
      co_return co_await write_stream(exchange, keep, chunked);
    }
    if (exchange->complete()) co_return co_await write_reply(*exchange, keep, with_body);
    if (!shared_->closed) exchange->set_gone(Exchange::Gone::kDisconnected);
    log(*exchange, exchange->reply().status);
    co_return false;
  }

  asio::awaitable<bool> write_stream(std::shared_ptr<Exchange> exchange, bool keep, bool chunked) {
    keep = keep && chunked && !shared_->draining;
    std::string head = stream_head(exchange->head(), keep, chunked);
    const Buffers first{asio::buffer(head)};
    bool ok = co_await write(first);
    while (ok && exchange->gone() == Exchange::Gone::kNo) {
      const bool last = exchange->complete();
      const Buffers rest{asio::buffer(unsent_)};
      if (!unsent_.empty()) ok = co_await write(rest);
      release(unsent_);
      exchange->take_pending(sending_);
      if (!sending_.empty() || last) ok = ok && co_await write_events(sending_, chunked, last);
      release(sending_);
      if (ok) exchange->note_written(Clock::now());
      if (last) break;
      if (!exchange->has_pending() && !exchange->complete() &&
          exchange->gone() == Exchange::Gone::kNo) {
        at_once_ = chunked ? AtOnce::kChunked : AtOnce::kPlain;
        co_await wake_.async_wait(kAwait);
        at_once_ = AtOnce::kNo;
      }
      ok = ok && socket_.is_open() && !shared_->closed;
    }
    if (!ok && !shared_->closed) {
      const bool slow = std::exchange(timed_out_, false);
      exchange->set_gone(slow ? Exchange::Gone::kTooSlow : Exchange::Gone::kDisconnected);
      outcome_ = slow ? "too_slow" : "disconnected";
    }
    log(*exchange, HttpStatus::kOk);
    co_return ok&& keep && exchange->gone() == Exchange::Gone::kNo;
  }

  // --- writing ---

  // While a stream waits for events, nothing of it is under way: what the socket takes goes there
  // without a turn of the loop. False if the coroutine must go on: it sends the rest, and hears of
  // what is wrong with the socket.
  bool write_at_once(Exchange& exchange) {
    if (at_once_ == AtOnce::kNo || exchange.complete() || !unsent_.empty()) return false;
    if (!exchange.has_pending() || exchange.gone() != Exchange::Gone::kNo) return false;
    if (exchange.buffer().size() > kMaxBytesAtOnce) return false;
    exchange.take_pending(sending_);
    if (at_once_ == AtOnce::kChunked) {
      fmt::format_to(std::back_inserter(unsent_), "{:x}\r\n", sending_.size());
    }
    unsent_ += sending_;
    if (at_once_ == AtOnce::kChunked) unsent_ += "\r\n";
    error_code failed;
    const size_t sent = socket_.write_some(asio::buffer(unsent_), failed);
    bytes_written_ += sent;
    unsent_.erase(0, sent);
    if (!unsent_.empty()) return false;
    release(sending_);
    release(unsent_);
    exchange.note_written(Clock::now());
    return true;
  }

  asio::awaitable<bool> write_events(const std::string& events, bool chunked, bool last) {
    std::string size;
    std::string_view end;
    if (chunked) {
      if (!events.empty()) size = fmt::format("{:x}\r\n", events.size());
      end = events.empty() ? "0\r\n\r\n" : last ? "\r\n0\r\n\r\n" : "\r\n";
    }
    const Buffers buffers{asio::buffer(size), asio::buffer(events), asio::buffer(end)};
    co_return co_await write(buffers);
  }

  asio::awaitable<bool> write_reply(const Exchange& exchange, bool keep, bool with_body) {
    keep = keep && !shared_->draining;
    const HttpReply& reply = exchange.reply();
    const std::string head = reply_head(exchange.head(), reply, keep);
    const std::string_view body = with_body ? std::string_view(reply.body) : std::string_view();
    const Buffers buffers{asio::buffer(head), asio::buffer(body)};
    const bool ok = co_await write(buffers);
    if (!ok) outcome_ = std::exchange(timed_out_, false) ? "too_slow" : "disconnected";
    log(exchange, reply.status);
    co_return ok&& keep;
  }

  // Any progress moves the deadline. False if the client is gone or took too long.
  asio::awaitable<bool> write(const Buffers& buffers) {
    set_deadline(shared_->options.write_timeout);
    const auto progress = [this](const error_code& failed, size_t) -> size_t {
      set_deadline(shared_->options.write_timeout);
      return failed ? 0 : size_t{64} << 10;
    };
    auto [failed, bytes] = co_await asio::async_write(socket_, buffers, progress, kAwait);
    set_deadline(std::nullopt);
    bytes_written_ += bytes;
    co_return !failed;
  }

  // Takes what the client is still sending, for a while, so that it reads our answer before the
  // reset that closing on unread data would send.
  asio::awaitable<void> linger() {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    set_deadline(kLinger);
    std::array<char, kReadBytes> dropped;
    for (size_t total = 0; total < kMaxDiscardedBytes;) {
      auto [failed, bytes] = co_await socket_.async_read_some(asio::buffer(dropped), kAwait);
      if (failed) break;
      total += bytes;
    }
  }

  // --- the client while it waits ---

  // One read is always pending: it notices that the client is gone, and keeps what it sends early.
  // Of a client that sends too much early, nothing is kept, nor is the connection.
  void watch(std::shared_ptr<Exchange> exchange) {
    if (buffer_.size() >= kMaxPipelinedBytes) flooded_ = true;
    if (flooded_) buffer_.clear();
    watching_ = true;
    auto on_read = [self = shared_from_this(), exchange](error_code failed, size_t bytes) {
      self->watching_ = false;
      if (!failed) {
        self->buffer_.commit(bytes);
        self->watch(exchange);
      } else if (failed != asio::error::operation_aborted) {
        self->watch_ok_ = false;
        if (!self->shared_->closed) exchange->set_gone(Exchange::Gone::kDisconnected);
      }
      self->wake_.cancel();
    };
    socket_.async_read_some(
        buffer_.prepare(kReadBytes),
        asio::bind_cancellation_slot(stop_watching_.slot(), std::move(on_read)));
  }

  asio::awaitable<void> stop_watching() {
    while (watching_) {
      stop_watching_.emit(asio::cancellation_type::terminal);
      co_await wake_.async_wait(kAwait);
    }
  }

  // --- ---

  void set_deadline(std::optional<Duration> within) {
    deadline_ = within ? Clock::now() + *within : kNever;
  }

  void log(const Exchange& exchange, HttpStatus status) {
    const HttpHead& head = exchange.head();
    std::string_view outcome = std::exchange(outcome_, "ok");
    if (exchange.gone() == Exchange::Gone::kTooSlow) outcome = "too_slow";
    if (exchange.gone() == Exchange::Gone::kDisconnected) outcome = "disconnected";
    const AccessEntry entry{.head = head,
                            .status = status,
                            .reason = exchange.reply().reason,
                            .outcome = outcome,
                            .bytes = std::exchange(bytes_written_, 0),
                            .took = Clock::now() - head.received,
                            .facts = exchange.facts()};
    const bool quiet =
        head.method == "GET" && (status == HttpStatus::kOk || status == HttpStatus::kNotModified);
    const auto level = quiet ? spdlog::level::debug : spdlog::level::info;
    if (spdlog::should_log(level)) spdlog::log(level, "{}", access_text(entry));
    if (!quiet && shared_->handlers.log) shared_->handlers.log(entry);
  }

  tcp::socket socket_;
  asio::steady_timer wake_;
  std::shared_ptr<HttpShared> shared_;
  beast::flat_buffer buffer_;
  std::string peer_ = "-";
  TimePoint deadline_ = kNever;
  bool timed_out_ = false;
  bool idle_ = true;
  enum class AtOnce { kNo, kPlain, kChunked };
  AtOnce at_once_ = AtOnce::kNo;  // whether, and how, write_at_once may write
  std::string sending_;           // events on their way
  std::string unsent_;            // what write_at_once could not send
  asio::cancellation_signal stop_watching_;
  bool watching_ = false;
  bool watch_ok_ = true;
  bool flooded_ = false;  // by requests behind the one under way
  std::weak_ptr<Exchange> answering_;
  std::string_view outcome_ = "ok";
  size_t bytes_written_ = 0;
};

}  // namespace

void start_connection(tcp::socket socket, std::shared_ptr<HttpShared> shared) {
  const auto executor = socket.get_executor();
  auto connection = std::make_shared<HttpConnection>(std::move(socket), std::move(shared));
  asio::co_spawn(
      executor, [connection] { return connection->run(); },
      [connection](std::exception_ptr failed) {
        if (failed) LOG_ERROR("http: a connection ended with an exception");
      });
}

}  // namespace baton::router
