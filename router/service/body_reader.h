#pragma once

#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <functional>
#include <memory>

#include "router/http/exchange.h"

namespace boost::asio {
class io_context;
}

namespace baton::router {

// Makes sense of long bodies on a thread of its own, one after another, so that the streams on the
// io_context's thread do not stand still meanwhile. All calls are made on that thread.
class BodyReader {
 public:
  BodyReader(boost::asio::io_context& io, size_t max_waiting_bytes);
  ~BodyReader();  // drops what waits; nothing is called afterwards

  // Runs on the io_context's thread.
  using Then = std::function<void()>;
  // Calls `read` on the other thread, then what it returned; neither once the client is gone. Takes
  // the exchange's on_gone. False, and nothing is called, while max_waiting_bytes wait already.
  bool read(const std::shared_ptr<Exchange>& exchange, size_t bytes, std::function<Then()> read);

  size_t waiting_bytes() const { return waiting_bytes_; }

 private:
  boost::asio::io_context& io_;
  const size_t max_waiting_bytes_;
  size_t waiting_bytes_ = 0;
  std::shared_ptr<void> alive_ = std::make_shared<char>();  // for work that comes back late
  boost::asio::thread_pool thread_{1};
};

}  // namespace baton::router
