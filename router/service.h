#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "common/base/result.h"
#include "router/service/config.h"

namespace boost::asio {
class io_context;
}

namespace baton::router {

// The router: the OpenAI API over HTTP on one side, workers on the other. Everything runs on the
// thread of one io_context (the text of long requests on a second one); all calls are made there.
class RouterService {
 public:
  // Reads the models' tokenizers (blocks), listens, and keeps connecting to the workers. The error
  // names the file or address.
  static result<std::unique_ptr<RouterService>> start(boost::asio::io_context& io,
                                                      RouterConfig config);
  virtual ~RouterService() = default;

  virtual uint16_t http_port() const = 0;
  virtual uint16_t metrics_port() const = 0;  // 0: none
  // From now on these may use it; what runs goes on, and what tenants have used stays used.
  virtual void set_access(const AccessConfig& access) = 0;
  // The access log goes on in the file that has its name now.
  virtual void reopen_logs() = 0;
  // Is not ready, but serves on for config.shutdown_delay; then takes no more, finishes what runs
  // (at most config.drain_timeout; then it is told so), and calls `done`.
  virtual void drain(std::function<void()> done) = 0;
};

}  // namespace baton::router
