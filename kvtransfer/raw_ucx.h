#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

// The plainest use of UCX: one-sided gets in a loop, event-driven, without protocol, digest or any
// care for failure. What the transport is measured against; never part of a worker.
class RawUcx {
 public:
  static result<std::unique_ptr<RawUcx>> create(std::string_view tls, size_t bytes);
  virtual ~RawUcx() = default;

  virtual std::span<std::byte> memory() const = 0;
  // What the other process needs for connect().
  virtual std::string address() const = 0;
  virtual status connect(std::string_view address) = 0;

  // Reads all of `ops` from the connected process, at most `window` at a time; blocks.
  virtual status read(std::span<const GetOp> ops, size_t window) = 0;
  // Answers reads until `stop_fd` is readable; blocks. (Over TCP, UCX has the owner's CPU answer.)
  virtual void serve(int stop_fd) = 0;
};

}  // namespace baton::kvtransfer
