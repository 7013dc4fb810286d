#pragma once

#include "common/base/ids.h"
#include "common/proto/worker.pb.h"

namespace baton::serving {

// What the worker around a prefill or decode service does for it. One thread, the control thread.
class ServiceHost {
 public:
  virtual ~ServiceHost() = default;
  // Dropped if that router is away: its requests are being cancelled.
  virtual void send(RouterId router, const proto::Frame& frame) = 0;
  // The version of worker.proto that both sides speak; 0 if that router is away.
  virtual uint32_t protocol(RouterId router) const = 0;
  virtual void work_added() = 0;       // the step loop should plan
  virtual void handoff_touched() = 0;  // the hand-off driver should be polled
};

}  // namespace baton::serving
