#include "common/net/name_lookup.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace baton::net {

namespace asio = boost::asio;

FoundName ask_system(const std::string& host, const std::string& port) {
  FoundName out;
  asio::io_context io(1);  // whose end waits for the system: here that harms nobody
  for (const auto& entry : asio::ip::tcp::resolver(io).resolve(host, port, out.failed)) {
    out.endpoints.push_back(entry.endpoint());
  }
  return out;
}

// What the thread that looks and whoever asks share.
struct NameQuery::Shared {
  Shared(asio::any_io_executor on, NameLookup look, std::string a_host, std::string a_port)
      : executor(std::move(on)),
        lookup(std::move(look)),
        host(std::move(a_host)),
        port(std::move(a_port)) {}

  const asio::any_io_executor executor;  // not to be used once nobody waits: it may be gone
  const NameLookup lookup;
  const std::string host, port;

  std::mutex mutex;
  bool looking = false;
  Answered answered;  // null: nobody waits
};

NameQuery::NameQuery(asio::any_io_executor executor, NameLookup lookup, std::string host,
                     std::string port)
    : executor_(executor),
      shared_(std::make_shared<Shared>(std::move(executor), std::move(lookup), std::move(host),
                                       std::move(port))) {}

NameQuery::~NameQuery() { forget(); }

void NameQuery::ask(Answered answered) {
  Answered next = [this, answered = std::move(answered)](const FoundName& found) {
    waiting_.reset();
    answered(found);
  };
  if (!waiting_) waiting_.emplace(executor_);
  {
    const std::lock_guard lock(shared_->mutex);
    std::swap(shared_->answered, next);
    if (std::exchange(shared_->looking, true)) return;
  }
  try {
    std::thread([shared = shared_] { look(shared); }).detach();
  } catch (const std::system_error&) {
    tell(shared_, {.endpoints = {}, .failed = asio::error::no_memory});  // or of threads
  }
}

void NameQuery::forget() {
  Answered dropped;  // after the lock: whatever it holds may end with it
  {
    const std::lock_guard lock(shared_->mutex);
    std::swap(shared_->answered, dropped);
  }
  if (!waiting_) return;
  // Later, as of a timer that is cancelled: a loop that has not begun is not to end by this.
  asio::post(executor_, [waited = std::move(*waiting_)] {});
  waiting_.reset();
}

void NameQuery::look(const std::shared_ptr<Shared>& shared) {
  tell(shared, shared->lookup(shared->host, shared->port));
}

void NameQuery::tell(const std::shared_ptr<Shared>& shared, FoundName found) {
  const std::lock_guard lock(shared->mutex);
  shared->looking = false;
  if (!shared->answered) return;
  asio::post(shared->executor, [shared, found = std::move(found)] {
    Answered answered;
    {
      const std::lock_guard inner(shared->mutex);
      answered = std::exchange(shared->answered, nullptr);
    }
    if (answered) answered(found);
  });
}

asio::awaitable<FoundName> look_up(NameLookup lookup, std::string host, std::string port,
                                   Duration within) {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor, within);
  std::optional<FoundName> found;
  NameQuery query(executor, std::move(lookup), std::move(host), std::move(port));
  query.ask([&](const FoundName& answer) {
    found = answer;
    timer.cancel();
  });
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  if (found) co_return std::move(*found);
  co_return FoundName{.endpoints = {}, .failed = asio::error::timed_out};
}

}  // namespace baton::net
