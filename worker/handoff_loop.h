#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>

#include "common/base/clock.h"
#include "kvtransfer/handoff_driver.h"

namespace baton::worker {

// Lets a HandoffDriver make progress on an io_context: when its descriptor is readable, when its
// next deadline comes, and after kick(). Never spins: between these it sleeps.
class HandoffLoop {
 public:
  // The driver outlives this. kIo if its descriptor cannot be watched.
  HandoffLoop(boost::asio::io_context& io, kvtransfer::HandoffDriver& driver);
  ~HandoffLoop();

  status start();
  // Call after any call of the driver that may have made work for it. Cheap; coalesced.
  void kick();

 private:
  void run();
  void sleep();

  boost::asio::io_context& io_;
  kvtransfer::HandoffDriver& driver_;
  boost::asio::posix::stream_descriptor event_;
  boost::asio::steady_timer timer_;
  TimePoint timer_at_ = TimePoint::max();
  const std::shared_ptr<void> alive_ = std::make_shared<char>();  // handlers may outlive this
  bool posted_ = false;                                           // run() is queued
  bool waiting_ = false;                                          // a wait on event_ is pending
};

}  // namespace baton::worker
