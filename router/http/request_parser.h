#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>

#include "router/http/server.h"

namespace baton::router {

// Reads one request. Beast bounds a single header line and the body; this also bounds the header as
// a whole and what chunks bring beside the body: sizes, extensions and the trailer, whose fields
// are dropped. Beast would store them, and throws where one is too long. Never throws, and wants no
// more to be buffered than it was given and HttpOptions::max_header_bytes.
class RequestParser final
    : public boost::beast::http::request_parser<boost::beast::http::string_body> {
 public:
  explicit RequestParser(const HttpOptions& options);

  // Takes from the front of `data` up to the header's end or, once that is done, the message's end.
  // Returns how many bytes it took. `failed`: need_more, to be called again with what was not taken
  // and more behind it; header_limit or body_limit; or why this is no HTTP.
  size_t take(boost::asio::const_buffer data, boost::system::error_code& failed);

 private:
  size_t take_header(boost::asio::const_buffer data, boost::system::error_code& failed);
  size_t take_body(boost::asio::const_buffer data, boost::system::error_code& failed);
  // Of the header; of the trailer, too, in a Beast that knows no difference.
  void on_field_impl(boost::beast::http::field name, boost::beast::string_view name_string,
                     boost::beast::string_view value, boost::system::error_code& failed) override;

  const size_t max_header_bytes_;
  const size_t max_framing_bytes_;
  size_t header_bytes_ = 0;
  size_t framing_bytes_ = 0;  // of the body, beside what is kept of it
};

}  // namespace baton::router
