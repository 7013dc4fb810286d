#pragma once

#include <string_view>

#include "common/proto/worker.pb.h"

namespace baton::proto {

// As configuration, logs, labels of metrics and the live page have it.
inline std::string_view role_name(Role role) {
  switch (role) {
    case ROLE_PREFILL:
      return "prefill";
    case ROLE_DECODE:
      return "decode";
    case ROLE_MIXED:
      return "mixed";
    default:
      return "unknown";
  }
}

}  // namespace baton::proto
