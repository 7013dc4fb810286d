#include "router/service/body_reader.h"

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <utility>

namespace baton::router {

BodyReader::BodyReader(boost::asio::io_context& io, size_t max_waiting_bytes)
    : io_(io), max_waiting_bytes_(max_waiting_bytes) {}

BodyReader::~BodyReader() {
  thread_.stop();
  thread_.join();
}

bool BodyReader::read(const std::shared_ptr<Exchange>& exchange, size_t bytes,
                      std::function<Then()> read) {
  if (waiting_bytes_ >= max_waiting_bytes_) return false;
  waiting_bytes_ += bytes;
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  exchange->on_gone([gone] { *gone = true; });
  boost::asio::post(thread_, [this, gone, bytes, alive = std::weak_ptr<void>(alive_),
                              read = std::move(read)]() mutable {
    Then then;
    if (!*gone) then = read();
    // With `read` in it: what that holds is let go of on the io_context's thread.
    boost::asio::post(io_, [this, gone, bytes, alive = std::move(alive), read = std::move(read),
                            then = std::move(then)] {
      if (alive.expired()) return;
      waiting_bytes_ -= bytes;
      if (then && !*gone) then();
    });
  });
  return true;
}

}  // namespace baton::router
