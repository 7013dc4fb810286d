#include "router/http/request_parser.h"

#include <boost/beast/http/error.hpp>
#include <string_view>

namespace baton::router {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

namespace {

// The last chunk's line without all that ends it. Of so little, a debug build's Beast asserts that
// it is not asked twice.
bool is_cut_end(asio::const_buffer data) {
  const std::string_view text(static_cast<const char*>(data.data()), data.size());
  return text.size() < 5 && text.starts_with("0\r\n");
}

}  // namespace

RequestParser::RequestParser(const HttpOptions& options)
    : max_header_bytes_(options.max_header_bytes), max_framing_bytes_(options.max_body_bytes) {
  header_limit(static_cast<uint32_t>(options.max_header_bytes));
  body_limit(options.max_body_bytes);
}

size_t RequestParser::take(asio::const_buffer data, error_code& failed) {
  return is_header_done() ? take_body(data, failed) : take_header(data, failed);
}

size_t RequestParser::take_header(asio::const_buffer data, error_code& failed) {
  size_t taken = 0;
  failed = {};
  while (!failed && !is_header_done()) taken += put(data + taken, failed);
  header_bytes_ += taken;
  if ((!failed || failed == http::error::need_more) && header_bytes_ > max_header_bytes_) {
    failed = make_error_code(http::error::header_limit);
  }
  return taken;
}

size_t RequestParser::take_body(asio::const_buffer data, error_code& failed) {
  size_t taken = 0;
  failed = {};
  while (!failed && !is_done()) {
    if (taken == data.size() || (chunked() && is_cut_end(data + taken))) {
      failed = make_error_code(http::error::need_more);
      break;
    }
    const size_t kept = get().body().size();
    size_t framing = put(data + taken, failed);
    taken += framing;
    framing -= get().body().size() - kept;
    framing_bytes_ += framing;
    // It waits for the end of a chunk's first line or of the trailer.
    if (failed == http::error::need_more) framing += data.size() - taken;
    if (failed && failed != http::error::need_more) break;
    if (framing > max_header_bytes_ || framing_bytes_ > max_framing_bytes_) {
      failed = make_error_code(http::error::buffer_overflow);
    }
  }
  return taken;
}

void RequestParser::on_field_impl(http::field name, beast::string_view name_string,
                                  beast::string_view value, error_code& failed) {
  failed = {};
  if (!is_header_done()) get().insert(name, name_string, value);
}

}  // namespace baton::router
