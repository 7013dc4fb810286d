#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/system/error_code.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "router/http/connection.h"
#include "router/http/exchange.h"
#include "router/openai/error.h"

// The heads of requests and answers.
namespace baton::router {

using RequestFields = boost::beast::http::request_header<>;

HttpHead make_head(const RequestFields& fields, const std::string& peer, TimePoint received,
                   HttpShared& shared);
std::string make_request_id(HttpShared& shared);

// An answer to a head that is well-formed and yet not acceptable; the connection ends with it.
std::optional<HttpReply> check_header(const RequestFields& fields);

// What to say about a request that could not be read (`part`: the header, the body); nothing where
// nobody is left to hear it.
std::optional<ApiError> read_error(const boost::system::error_code& failed, bool timed_out,
                                   std::string_view part, const HttpOptions& options);

// Status line and header fields, with the empty line behind them.
std::string reply_head(const HttpHead& head, const HttpReply& reply, bool keep);
std::string stream_head(const HttpHead& head, bool keep, bool chunked);

}  // namespace baton::router
