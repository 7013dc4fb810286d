#pragma once

#include <boost/system/result.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace baton {

// What went wrong, as far as a caller may branch on it.
enum class Errc {
  kInvalidArgument,    // the caller's input is wrong, and stays wrong if sent again
  kNotFound,           // no such model, worker, request
  kUnsupported,        // understood, but not offered
  kResourceExhausted,  // full now; later may work
  kUnavailable,        // the peer is away; another may serve
  kDeadlineExceeded,   // waited as long as allowed
  kCancelled,          // the one who asked no longer wants it
  kAborted,            // given up by the other side, or by a newer generation
  kPermissionDenied,   // the other side has not proven who it is
  kDataCorrupt,        // a file or message that cannot be what it says
  kIo,                 // the operating system said no
  kInternal,           // our bug
};

std::string_view name(Errc code);

// An error and one sentence for people; the sentence names the field, file or peer.
struct Error {
  Errc code = Errc::kInternal;
  std::string message;

  std::string to_string() const;
  friend bool operator==(const Error&, const Error&) = default;
};

template <class T>
using result = boost::system::result<T, Error>;
using status = boost::system::result<void, Error>;

inline Error error(Errc code, std::string message) { return Error{code, std::move(message)}; }

// Asked for by boost::system::result when value() is called on an error.
[[noreturn]] void throw_exception_from_error(const Error& e, const boost::source_location&);

}  // namespace baton

// BATON_TRY(var, expr): var = value of expr, or return its error from this function.
#define BATON_TRY_CONCAT_(a, b) a##b
#define BATON_TRY_NAME_(line) BATON_TRY_CONCAT_(baton_try_, line)
#define BATON_TRY(declaration, expression)                                  \
  auto&& BATON_TRY_NAME_(__LINE__) = (expression);                          \
  if (!BATON_TRY_NAME_(__LINE__)) return BATON_TRY_NAME_(__LINE__).error(); \
  declaration = std::move(*BATON_TRY_NAME_(__LINE__))
// BATON_CHECK_OK(expr): return the error of a status from this function.
#define BATON_CHECK_OK(expression)                    \
  do {                                                \
    auto&& baton_status_ = (expression);              \
    if (!baton_status_) return baton_status_.error(); \
  } while (false)
