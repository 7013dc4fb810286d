// Requests in pieces of any size end in the same message, and nothing that is dropped has no bound.
#include "router/http/request_parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/beast/http/error.hpp>
#include <string>

namespace baton::router {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

struct Outcome {
  error_code failed;
  size_t most_buffered = 0;
  size_t taken = 0;
};

// As a connection does it, `piece` bytes at a time.
Outcome feed(RequestParser& parser, std::string_view bytes, size_t piece) {
  Outcome out;
  std::string buffer;
  while (!parser.is_done()) {
    if (!buffer.empty()) {
      const size_t taken = parser.take(asio::buffer(buffer), out.failed);
      buffer.erase(0, taken);
      out.taken += taken;
      if (out.failed && out.failed != http::error::need_more) return out;
      if (!out.failed) continue;
    }
    if (bytes.empty()) break;
    buffer += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    out.most_buffered = std::max(out.most_buffered, buffer.size());
  }
  return out;
}

const std::string kHead =
    "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n";

TEST(RequestParser, PiecesOfAnySize) {
  const std::string bytes =
      kHead + "3;x=y\r\nabc\r\n00a\r\n0123456789\r\n0\r\nA: c\r\nHost: u\r\n\r\n";
  for (size_t piece = 1; piece <= bytes.size() + 3; ++piece) {
    RequestParser parser({});
    const Outcome out = feed(parser, bytes + "GET", piece);
    ASSERT_TRUE(parser.is_done()) << piece << ": " << out.failed.message();
    EXPECT_EQ(out.taken, bytes.size());
    EXPECT_EQ(parser.get().body(), "abc0123456789");
    EXPECT_EQ(parser.get()["A"], "b");
    EXPECT_EQ(parser.get().count("A"), 1u) << "the trailer is dropped";
    EXPECT_EQ(parser.get().count("Host"), 1u);
  }
}

TEST(RequestParser, ABodyOfAnnouncedLengthHasNoFraming) {
  const HttpOptions options{.max_body_bytes = 1000};
  RequestParser parser(options);
  const std::string body(1000, 'x');
  const Outcome out = feed(parser, "POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + body, 7);
  EXPECT_TRUE(parser.is_done()) << out.failed.message();
  EXPECT_EQ(parser.get().body(), body);
}

TEST(RequestParser, AnEndInPieces) {
  const std::string length = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n0\r\n";
  for (size_t piece = 1; piece < 6; ++piece) {
    for (const std::string& bytes :
         {kHead + "0\r\n\r\n", kHead + "3\r\n0\r\n\r\n0\r\n\r\n", length}) {
      RequestParser parser({});
      EXPECT_EQ(feed(parser, bytes, piece).taken, bytes.size());
      EXPECT_TRUE(parser.is_done()) << piece << ": " << bytes;
    }
  }
}

struct Bound {
  std::string name;
  std::string body;
  http::error error;
};

TEST(RequestParser, EverythingHasABound) {
  const HttpOptions options{.max_header_bytes = 1000, .max_body_bytes = 4000};
  const std::string pad(100'000, 'a');
  std::string small_chunks, extended_chunks, trailers;
  for (int i = 0; i < 1000; ++i) {
    small_chunks += "1\r\nx\r\n";
    extended_chunks += "1;" + std::string(900, 'y') + "\r\nx\r\n";
    trailers += "A: b\r\n";
  }
  const Bound bounds[] = {
      {"one chunk", "fa1\r\n" + pad, http::error::body_limit},
      {"chunks together", "fa0\r\n" + std::string(4000, 'a') + "\r\n1\r\na",
       http::error::body_limit},
      {"sizes", std::string(100'000, '0'), http::error::buffer_overflow},
      {"an extension", "1;" + pad, http::error::buffer_overflow},
      {"extensions together", extended_chunks, http::error::buffer_overflow},
      {"framing of small chunks", small_chunks, http::error::buffer_overflow},
      {"a trailer", "0\r\nA: " + pad + "\r\n\r\n", http::error::buffer_overflow},
      {"a trailer without end", "0\r\nA: " + pad, http::error::buffer_overflow},
      {"a name in the trailer", "0\r\n" + pad + ": b\r\n\r\n", http::error::buffer_overflow},
      {"trailers together", "0\r\n" + trailers + "\r\n", http::error::buffer_overflow},
  };
  for (const Bound& bound : bounds) {
    for (const size_t piece : {1u, 100u, 8192u, 1u << 20}) {
      SCOPED_TRACE(bound.name + ", pieces of " + std::to_string(piece));
      RequestParser parser(options);
      const Outcome out = feed(parser, kHead + bound.body, piece);
      EXPECT_EQ(out.failed, bound.error) << out.failed.message();
      EXPECT_LE(out.most_buffered, options.max_header_bytes + piece);
      EXPECT_LE(parser.get().body().size(), options.max_body_bytes);
    }
  }
}

}  // namespace
}  // namespace baton::router
