#include "router/traces/name_lookup.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace baton::router {
namespace {

namespace asio = boost::asio;

// What the thread that looks and the coroutine that waits share.
struct Shared {
  std::mutex mutex;
  std::optional<FoundName> found;
  std::function<void()> wake;  // null: nobody waits any more
};

// However the coroutine ends, also with its io_context, it is not woken afterwards.
class Waiting {
 public:
  Waiting(std::shared_ptr<Shared> shared, std::function<void()> wake) : shared_(std::move(shared)) {
    const std::lock_guard lock(shared_->mutex);
    shared_->wake = std::move(wake);
  }
  ~Waiting() {
    const std::lock_guard lock(shared_->mutex);
    shared_->wake = nullptr;
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  bool is_over() const {
    const std::lock_guard lock(shared_->mutex);
    return shared_->found.has_value();
  }
  std::optional<FoundName> take() {
    const std::lock_guard lock(shared_->mutex);
    return std::exchange(shared_->found, std::nullopt);
  }

 private:
  const std::shared_ptr<Shared> shared_;
};

void look(const std::shared_ptr<Shared>& shared, const NameLookup& lookup, const std::string& host,
          const std::string& port) {
  FoundName found = lookup(host, port);
  const std::lock_guard lock(shared->mutex);
  shared->found = std::move(found);
  if (shared->wake) shared->wake();
}

}  // namespace

FoundName ask_system(const std::string& host, const std::string& port) {
  FoundName out;
  asio::io_context io(1);  // whose end waits for the system: here that harms nobody
  for (const auto& entry : asio::ip::tcp::resolver(io).resolve(host, port, out.failed)) {
    out.endpoints.push_back(entry.endpoint());
  }
  return out;
}

asio::awaitable<FoundName> look_up(NameLookup lookup, std::string host, std::string port,
                                   Duration within) {
  const auto executor = co_await asio::this_coro::executor;
  const auto timer = std::make_shared<asio::steady_timer>(executor, within);
  const auto shared = std::make_shared<Shared>();
  Waiting waiting(shared, [executor, weak = std::weak_ptr(timer)] {
    asio::post(executor, [weak] {
      if (const auto there = weak.lock()) there->cancel();
    });
  });
  std::thread([shared, lookup = std::move(lookup), host = std::move(host), port = std::move(port)] {
    look(shared, lookup, host, port);
  }).detach();
  if (!waiting.is_over()) co_await timer->async_wait(asio::as_tuple(asio::use_awaitable));
  auto found = waiting.take();
  if (!found) co_return FoundName{.endpoints = {}, .failed = asio::error::timed_out};
  co_return std::move(*found);
}

}  // namespace baton::router
