#pragma once

#include <string>

#include "common/proto/worker.pb.h"

namespace baton::worker {

// The line of this worker's log that says which of the router's requests a frame brings: by the
// number that the other lines call it, and by the id that its client knows. Empty: it brings none.
std::string arrival_text(const proto::Frame& frame);

}  // namespace baton::worker
