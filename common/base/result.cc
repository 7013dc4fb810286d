#include "common/base/result.h"

#include <stdexcept>

namespace baton {

std::string_view name(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return "invalid_argument";
    case Errc::kNotFound:
      return "not_found";
    case Errc::kUnsupported:
      return "unsupported";
    case Errc::kResourceExhausted:
      return "resource_exhausted";
    case Errc::kUnavailable:
      return "unavailable";
    case Errc::kDeadlineExceeded:
      return "deadline_exceeded";
    case Errc::kCancelled:
      return "cancelled";
    case Errc::kAborted:
      return "aborted";
    case Errc::kPermissionDenied:
      return "permission_denied";
    case Errc::kDataCorrupt:
      return "data_corrupt";
    case Errc::kIo:
      return "io";
    case Errc::kInternal:
      return "internal";
  }
  return "unknown";
}

std::string Error::to_string() const { return std::string(name(code)) + ": " + message; }

void throw_exception_from_error(const Error& e, const boost::source_location&) {
  throw std::runtime_error(e.to_string());
}

}  // namespace baton
