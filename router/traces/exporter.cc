#include "router/traces/exporter.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <exception>
#include <iterator>
#include <mutex>
#include <random>
#include <thread>

#include "common/base/log.h"
#include "router/traces/otlp_post.h"
#include "router/traces/otlp_tls.h"

namespace baton::router {
namespace {

namespace asio = boost::asio;

uint64_t random_id(std::mt19937_64& random) {
  uint64_t id = 0;
  while (id == 0) id = random();
  return id;
}

class Exporter final : public TraceExporter {
 public:
  Exporter(TraceConfig config, net::NameLookup lookup)
      : config_(std::move(config)),
        lookup_(std::move(lookup)),
        tls_(config_.endpoint.tls ? make_otlp_tls() : nullptr),
        instance_(random_id(ids_)),
        wake_(io_),
        last_words_(io_) {
    asio::co_spawn(io_, run(), [](std::exception_ptr failed) {
      if (failed) LOG_ERROR("traces: their export ended with an exception");
    });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Exporter() override {
    asio::post(io_, [this] {
      stopping_ = true;
      wake_.cancel();
      last_words_.expires_after(config_.last_words);
      last_words_.async_wait([this](boost::system::error_code done) {
        if (!done) io_.stop();
      });
      if (over_) last_words_.cancel();
    });
    thread_.join();
  }

  TraceContext context_of(const std::optional<TraceContext>& given) override {
    if (given) return *given;
    TraceContext made;
    for (size_t half = 0; half < 2; ++half) {
      const uint64_t id = random_id(random_);
      for (size_t i = 0; i < 8; ++i) made.trace[8 * half + i] = static_cast<uint8_t>(id >> (8 * i));
    }
    made.sampled = std::uniform_real_distribution<double>(0, 1)(random_) < config_.sample_ratio;
    return made;
  }

  void add(TracedRequest request) override {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= config_.max_waiting) {
      ++dropped_;
      return;
    }
    waiting_.push_back(std::move(request));
    if (waiting_.size() == config_.max_batch) asio::post(io_, [this] { wake_.cancel(); });
  }

  uint64_t exported() const override { return exported_; }
  uint64_t dropped() const override { return dropped_; }

 private:
  using Batch = std::vector<TracedRequest>;

  asio::awaitable<void> run() {
    bool last = false;
    while (!last) {
      if (!stopping_ && !is_full()) co_await pause(config_.every);
      last = stopping_;
      for (Batch batch = take(); !batch.empty(); batch = take()) co_await deliver(batch);
    }
    over_ = true;
    last_words_.cancel();
  }

  // Until then, or until something wakes it.
  asio::awaitable<void> pause(Duration d) {
    wake_.expires_after(d);
    co_await wake_.async_wait(asio::as_tuple(asio::use_awaitable));
  }

  bool is_full() {
    const std::lock_guard lock(mutex_);
    return waiting_.size() >= config_.max_batch;
  }

  Batch take() {
    const std::lock_guard lock(mutex_);
    const auto end =
        waiting_.begin() + static_cast<ptrdiff_t>(std::min(waiting_.size(), config_.max_batch));
    Batch batch(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
    waiting_.erase(waiting_.begin(), end);
    return batch;
  }

  std::string encode(const Batch& batch) {
    otlp::ExportTraceServiceRequest out;
    otlp::ResourceSpans& ours = *out.add_resource_spans();
    const auto say = [&](const char* key, std::string text) {
      otlp::KeyValue& attribute = *ours.mutable_resource()->add_attributes();
      attribute.set_key(key);
      attribute.mutable_value()->set_string_value(std::move(text));
    };
    say("service.name", "baton-router");
    say("service.version", config_.version);
    say("service.instance.id", fmt::format("{:016x}", instance_));
    otlp::ScopeSpans& spans = *ours.add_scope_spans();
    spans.mutable_scope()->set_name("baton");
    spans.mutable_scope()->set_version(config_.version);
    for (const TracedRequest& request : batch) {
      append_spans(
          request, [this] { return random_id(ids_); }, spans);
    }
    return out.SerializeAsString();
  }

  asio::awaitable<void> deliver(const Batch& batch) {
    const std::string body = encode(batch);
    const TimePoint give_up = Clock::now() + config_.give_up_after;
    for (Duration backoff = config_.first_backoff;; backoff *= 2) {
      const PostOutcome outcome = co_await post_spans(config_.endpoint, config_.headers, body,
                                                      config_.timeout, lookup_, tls_.get());
      if (outcome.kind == PostOutcome::Kind::kTaken) co_return count_taken(batch.size(), outcome);
      const Duration wait = std::max(backoff, outcome.retry_after);
      const bool again = outcome.kind == PostOutcome::Kind::kTryAgain && !stopping_;
      if (!std::exchange(failing_, true)) LOG_WARN("traces: {}", outcome.why);
      if (!again || Clock::now() + wait > give_up) break;
      // What waits in the meantime does not end it.
      const TimePoint until = Clock::now() + wait;
      while (!stopping_ && Clock::now() < until) co_await pause(until - Clock::now());
    }
    dropped_ += batch.size();
  }

  void count_taken(uint64_t requests, const PostOutcome& outcome) {
    const uint64_t rejected = std::min(requests, outcome.rejected_spans);
    exported_ += requests - rejected;
    dropped_ += rejected;
    if (rejected > 0) {
      if (!std::exchange(failing_, true)) LOG_WARN("traces: {}", outcome.why);
    } else if (std::exchange(failing_, false)) {
      LOG_INFO("traces: the collector takes them again");
    }
  }

  const TraceConfig config_;
  const net::NameLookup lookup_;
  const std::shared_ptr<asio::ssl::context> tls_;   // null: none is wanted
  std::mt19937_64 random_{std::random_device{}()};  // whoever adds: its thread
  std::atomic<uint64_t> exported_{0}, dropped_{0};

  std::mutex mutex_;
  std::deque<TracedRequest> waiting_;  // by mutex_

  // The thread's own.
  std::mt19937_64 ids_{std::random_device{}()};
  const uint64_t instance_;
  asio::io_context io_{1};
  asio::steady_timer wake_, last_words_;
  bool stopping_ = false, over_ = false;
  bool failing_ = false;  // and it was said
  std::thread thread_;
};

}  // namespace

std::unique_ptr<TraceExporter> TraceExporter::start(TraceConfig config, net::NameLookup lookup) {
  return std::make_unique<Exporter>(std::move(config), std::move(lookup));
}

}  // namespace baton::router
