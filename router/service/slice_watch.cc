#include "router/service/slice_watch.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <optional>
#include <random>
#include <string_view>
#include <utility>

#include "common/base/log.h"
#include "router/discovery/slice_tracker.h"
#include "router/service/kubernetes_get.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;

constexpr size_t kMaxListBytes = size_t{16} << 20;
// An object of the API server has at most 1.5 MiB.
constexpr size_t kMaxLineBytes = size_t{2} << 20;

}  // namespace

class SliceWatch::Run {
 public:
  Run(asio::io_context& io, const ServicePlace& place, const KubernetesApi& api, Found found)
      : api_(api), found_(std::move(found)), tracker_(place), timer_(io) {}

  // Holds `self` until it ends, which is soon after stop().
  static asio::awaitable<void> follow(std::shared_ptr<Run> self) {
    std::uniform_real_distribution<double> spread(0, 1);
    while (!self->stopped_) {
      const auto ask = self->tracker_.next(Clock::now(), spread(self->random_));
      self->timer_.expires_at(ask.at);
      co_await self->timer_.async_wait(asio::as_tuple(asio::use_awaitable));
      if (self->stopped_) break;
      const status done = co_await self->try_answer(ask);
      self->get_.reset();
      if (!done && !self->stopped_) self->failed(done.error());
    }
  }

  void stop() {
    stopped_ = true;
    timer_.cancel();
    if (get_) get_->close();
  }
  void broke() {
    up_ = false;
    LOG_ERROR("workers of {}/{} are not followed any more: an exception ended it",
              tracker_.place().name_space, tracker_.place().service);
  }
  bool up() const { return up_; }
  size_t left_out() const { return left_out_.endpoints; }

 private:
  // What the libraries may throw, for want of memory, must not end the watch for good.
  asio::awaitable<status> try_answer(const SliceTracker::Ask& ask) {
    std::string why;
    try {
      co_return co_await answer(ask);
    } catch (const std::exception& thrown) {
      why = thrown.what();
    }
    co_return tracker_.on_lost(std::move(why), Clock::now());
  }

  // One question, and all of its answer.
  asio::awaitable<status> answer(const SliceTracker::Ask& ask) {
    get_.emplace(timer_.get_executor(), api_);
    const auto code = co_await get_->ask(ask.target);
    if (stopped_) co_return error(Errc::kCancelled, "stopped");
    if (!code) co_return tracker_.on_lost(code.error().message, Clock::now());
    if (*code != 200) co_return tracker_.on_status(*code, Clock::now());
    if (ask.watch) {
      tracker_.on_watching(Clock::now());
      get_->expires_after(ask.watch_for + api_.answer_timeout);
      worked();
    }
    co_return co_await read(ask.watch);
  }

  // To the end of the answer: lines as they come, or the list as a whole.
  asio::awaitable<status> read(bool watch) {
    std::string text;  // that is not taken yet
    const size_t most = watch ? kMaxLineBytes : kMaxListBytes;
    for (bool more = true; more;) {
      const auto piece = co_await get_->read(text);
      if (stopped_) co_return error(Errc::kCancelled, "stopped");
      // What came before it broke off counts.
      const status taken = watch ? take_lines(text) : status();
      if (!taken) co_return taken;
      if (!piece) co_return tracker_.on_lost(piece.error().message, Clock::now());
      if (text.size() > most) {
        co_return tracker_.on_lost("the API server sends too long a list or line", Clock::now());
      }
      more = *piece;
    }
    if (watch) {
      tracker_.on_watch_end(Clock::now());
      co_return status();
    }
    const status taken = tracker_.on_list(text, Clock::now());
    if (taken) worked();
    co_return taken;
  }

  status take_lines(std::string& text) {
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      if (!line.empty()) BATON_CHECK_OK(tracker_.on_line(line, Clock::now()));
    }
    text.erase(0, begin);
    if (begin > 0) worked();
    return {};
  }

  void worked() {
    up_ = true;
    if (!std::exchange(trouble_, {}).empty()) {
      LOG_INFO("workers of {}/{} are known again", tracker_.place().name_space,
               tracker_.place().service);
    }
    auto changed = tracker_.take_changed();
    if (!changed) return;
    tell_left_out(std::move(changed->left_out));
    found_(changed->addresses);
  }

  void tell_left_out(LeftOut now) {
    if (now.endpoints > 0 && now.why != left_out_.why) {
      LOG_WARN("workers of {}/{}: {} are left out: {}", tracker_.place().name_space,
               tracker_.place().service, now.endpoints, now.why);
    }
    left_out_ = std::move(now);
  }

  void failed(const Error& why) {
    if (why.code == Errc::kAborted) return;  // everyday: what comes next will tell
    up_ = false;
    if (std::exchange(trouble_, why.message) == why.message) return;
    LOG_WARN("workers of {}/{} stay as they were: {}", tracker_.place().name_space,
             tracker_.place().service, why.message);
  }

  const KubernetesApi api_;
  const Found found_;
  SliceTracker tracker_;
  std::mt19937 random_{std::random_device{}()};
  asio::steady_timer timer_;
  std::optional<KubernetesGet> get_;  // uses api_
  LeftOut left_out_;
  std::string trouble_;  // logged once, not at each attempt
  bool up_ = false, stopped_ = false;
};

SliceWatch::SliceWatch(asio::io_context& io, const ServicePlace& place, const KubernetesApi& api,
                       Found found)
    : run_(std::make_shared<Run>(io, place, api, std::move(found))) {
  asio::co_spawn(io, Run::follow(run_), [run = run_](std::exception_ptr failed) {
    if (failed) run->broke();
  });
}

SliceWatch::~SliceWatch() { run_->stop(); }

bool SliceWatch::up() const { return run_->up(); }

size_t SliceWatch::left_out() const { return run_->left_out(); }

}  // namespace baton::router
