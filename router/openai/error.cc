#include "router/openai/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "router/openai/json_writer.h"

namespace baton::router {

void throw_exception_from_error(const ApiError& e, const boost::source_location&) {
  throw std::runtime_error(e.message);
}

ApiError bad_field(std::string_view field, std::string_view reason) {
  return {.message = fmt::format("'{}' {}", field, reason), .param = std::string(field)};
}

ApiError unsupported_field(std::string_view field, std::string_view reason) {
  return {.message = fmt::format("'{}' {}", field, reason),
          .param = std::string(field),
          .code = "unsupported_parameter"};
}

ApiError model_not_found(std::string_view model) {
  return {.status = HttpStatus::kNotFound,
          .message = fmt::format("The model '{}' does not exist", model),
          .type = "invalid_request_error",
          .param = "model",
          .code = "model_not_found"};
}

ApiError overloaded(std::string_view reason, uint32_t retry_after_seconds) {
  return {.status = HttpStatus::kServiceUnavailable,
          .message = std::string(reason),
          .type = "server_error",
          .code = "overloaded",
          .retry_after_seconds = retry_after_seconds};
}

bool is_overload(const ApiError& error) { return error.code == "overloaded"; }

ApiError from_refusal(const Refusal& refusal) {
  ApiError out{.message = refusal.message};
  if (refusal.reason == Refusal::Reason::kImpossible) {
    out.status = HttpStatus::kUnprocessableContent;
    out.code = "slo_impossible";
    out.never_retry = true;
    return out;
  }
  constexpr Duration kLeast = milliseconds(1), kMost = std::chrono::hours(1);
  const Duration after = std::clamp(refusal.retry_after, kLeast, kMost);
  out.status = HttpStatus::kServiceUnavailable;
  out.type = "server_error";
  out.code = "slo_unattainable";
  out.retry_after_ms = static_cast<uint32_t>(std::chrono::ceil<milliseconds>(after).count());
  out.retry_after_seconds = static_cast<uint32_t>(std::chrono::ceil<seconds>(after).count());
  return out;
}

ApiError from_error(const Error& e) {
  ApiError out{.message = e.message, .code = std::string(name(e.code))};
  switch (e.code) {
    case Errc::kInvalidArgument:
    case Errc::kUnsupported:
      return out;
    case Errc::kNotFound:
      out.status = HttpStatus::kNotFound;
      return out;
    case Errc::kResourceExhausted:
      return overloaded(e.message);
    case Errc::kUnavailable:
      out.status = HttpStatus::kServiceUnavailable;
      out.retry_after_seconds = 1;
      break;
    case Errc::kDeadlineExceeded:
      out.status = HttpStatus::kGatewayTimeout;
      break;
    default:
      out.status = HttpStatus::kInternalServerError;
      break;
  }
  out.type = "server_error";
  return out;
}

std::string error_body(const ApiError& e) {
  std::string out = R"({"error":{"message":)";
  append_json_string(out, e.message);
  out += R"(,"type":)";
  append_json_string(out, e.type);
  out += R"(,"param":)";
  append_json_string_or_null(out, e.param);
  out += R"(,"code":)";
  append_json_string_or_null(out, e.code);
  out += "}}";
  return out;
}

}  // namespace baton::router
