#pragma once

#include <boost/system/result.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "router/http/status.h"
#include "router/placement/slo.h"

namespace baton::router {

// An error as a client of the API sees it: {"error": {"message", "type", "param", "code"}}.
struct ApiError {
  HttpStatus status = HttpStatus::kBadRequest;
  std::string message;  // one sentence; names the field and the bound
  std::string type = "invalid_request_error";
  std::string param;                 // the field; empty: null
  std::string code;                  // empty: null
  uint32_t retry_after_seconds = 0;  // > 0: sent as Retry-After
  uint32_t retry_after_ms = 0;       // > 0: sent as retry-after-ms, for clients that know it
  bool never_retry = false;          // sent as x-should-retry: false
};

template <class T>
using api_result = boost::system::result<T, ApiError>;
using api_status = boost::system::result<void, ApiError>;

// Asked for by boost::system::result when value() is called on an error.
[[noreturn]] void throw_exception_from_error(const ApiError& e, const boost::source_location&);

// 400 about one field.
ApiError bad_field(std::string_view field, std::string_view reason);
// 400 about a field that is understood but not offered.
ApiError unsupported_field(std::string_view field, std::string_view reason);
ApiError model_not_found(std::string_view model);
// 503 with Retry-After.
ApiError overloaded(std::string_view reason, uint32_t retry_after_seconds = 1);
// 503 with Retry-After (at most an hour), rounded up to whole seconds, or 422 that is not to be
// retried.
ApiError from_refusal(const Refusal& refusal);
// Whether it says that there was no room.
bool is_overload(const ApiError& error);
// An error of a worker or of dispatch, as HTTP tells it.
ApiError from_error(const Error& e);

// The JSON body, without a line end.
std::string error_body(const ApiError& e);

}  // namespace baton::router
