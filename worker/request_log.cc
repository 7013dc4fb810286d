#include "worker/request_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace baton::worker {
namespace {

constexpr size_t kMaxIdBytes = 64;

bool is_safe(std::string_view id) {
  return !id.empty() && id.size() <= kMaxIdBytes && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

std::string text_of(const proto::RequestSpec& spec, std::string_view what) {
  return fmt::format("request {}: id={} generation={} {} of {} tokens", spec.request(),
                     is_safe(spec.trace()) ? std::string_view(spec.trace()) : "-",
                     spec.generation(), what, spec.tokens_size());
}

}  // namespace

std::string arrival_text(const proto::Frame& frame) {
  if (frame.has_submit()) return text_of(frame.submit().spec(), "a prompt");
  if (frame.has_reserve()) return text_of(frame.reserve().spec(), "a reservation");
  return {};
}

}  // namespace baton::worker
