#include "kvtransfer/messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace baton::kvtransfer {

std::string to_string(const HandoffKey& key) {
  return fmt::format("{:x}/{}.{}", key.router.value, key.request.value, key.generation.value);
}

std::string_view name(NackReason reason) {
  switch (reason) {
    case NackReason::kMissing:
      return "missing";
    case NackReason::kMismatch:
      return "digest mismatch";
    case NackReason::kUnknown:
      return "unknown hand-off";
  }
  return "?";
}

std::string_view name(AbortReason reason) {
  switch (reason) {
    case AbortReason::kCancelled:
      return "cancelled";
    case AbortReason::kNotNeeded:
      return "not needed";
    case AbortReason::kDeadline:
      return "deadline";
    case AbortReason::kSuperseded:
      return "superseded";
    case AbortReason::kTokenMismatch:
      return "different prompt";
    case AbortReason::kProtocol:
      return "protocol error";
    case AbortReason::kReadFailed:
      return "read failed";
    case AbortReason::kUnknown:
      return "unknown hand-off";
    case AbortReason::kFailed:
      return "failed";
  }
  return "?";
}

std::string_view name(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kNames = {
      "credit", "refuse", "announce", "commit", "ack", "nack", "abort", "lease"};
  return kNames[message.index()];
}

std::vector<Lease> make_leases(std::vector<HandoffKey> keys, bool from_source, Duration extends) {
  std::vector<Lease> leases;
  for (size_t at = 0; at < keys.size(); at += kMaxLeaseKeys) {
    const size_t end = std::min(at + kMaxLeaseKeys, keys.size());
    leases.push_back({from_source, extends, {keys.begin() + at, keys.begin() + end}});
  }
  return leases;
}

}  // namespace baton::kvtransfer
