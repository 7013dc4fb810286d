#pragma once

#include <string_view>

#include "common/proto/worker.pb.h"

namespace baton::router {

// As labels of metrics and the live page have it.
inline std::string_view role_name(proto::Role role) {
  switch (role) {
    case proto::ROLE_PREFILL:
      return "prefill";
    case proto::ROLE_DECODE:
      return "decode";
    case proto::ROLE_MIXED:
      return "mixed";
    default:
      return "unknown";
  }
}

}  // namespace baton::router
