// Whatever bytes a client sends, in whatever pieces, they end in a request or in an error.
#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "router/http/head.h"
#include "router/http/request_parser.h"

namespace http = boost::beast::http;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  baton::router::HttpShared shared;
  shared.options.max_header_bytes = 256;
  shared.options.max_body_bytes = 1024;
  const size_t piece = size_t{1} + data[0];
  std::string_view left(reinterpret_cast<const char*>(data) + 1, size - 1);
  baton::router::RequestParser parser(shared.options);
  boost::system::error_code failed;
  for (std::string buffer; !parser.is_done();) {
    if (!buffer.empty()) {
      const bool had_header = parser.is_header_done();
      buffer.erase(0, parser.take(boost::asio::buffer(buffer), failed));
      if (!had_header && parser.is_header_done()) {
        (void)baton::router::make_head(parser.get(), "-", {}, shared);
        if (baton::router::check_header(parser.get())) return 0;
      }
      if (failed && failed != http::error::need_more) break;
      if (!failed) continue;
    }
    if (buffer.size() > shared.options.max_header_bytes) std::abort();
    if (left.empty()) break;
    buffer += left.substr(0, piece);
    left.remove_prefix(std::min(piece, left.size()));
  }
  (void)baton::router::read_error(failed, false, "it", shared.options);
  if (parser.get().body().size() > shared.options.max_body_bytes) std::abort();
  return 0;
}
