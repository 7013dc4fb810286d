#pragma once

#include <string>

namespace baton::kvtransfer {

// Equal in two processes that can share memory: one kernel, one IPC and one pid namespace. Empty if
// the system does not say.
std::string host_identity();

}  // namespace baton::kvtransfer
