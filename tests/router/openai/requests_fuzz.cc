// Whatever the body is, parsing ends in a request or in an error that is itself valid JSON.
#include <boost/json/parse.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "router/openai/chat_request.h"
#include "router/openai/completion_request.h"
#include "router/openai/tokenize_request.h"

namespace {

template <class Parsed>
void check(const Parsed& parsed) {
  if (parsed) return;
  boost::system::error_code failed;
  const std::string body = baton::router::error_body(parsed.error());
  (void)boost::json::parse(body, failed);
  if (failed) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const baton::router::RequestLimits limits{.max_body_bytes = 1 << 16};
  check(baton::router::parse_chat_request(body, limits));
  check(baton::router::parse_completion_request(body, limits));
  check(baton::router::parse_tokenize_request(body, limits));
  check(baton::router::parse_detokenize_request(body, limits));
  return 0;
}
