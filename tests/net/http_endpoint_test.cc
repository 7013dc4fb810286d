#include "common/net/http_endpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "common/base/clock.h"

namespace baton::net {
namespace {

using boost::asio::ip::tcp;

// What the endpoint answers to raw bytes, read until it closes.
std::string exchange(const std::string& request) {
  boost::asio::io_context io;
  auto endpoint = serve_http(io, "127.0.0.1:0",
                             {{"/metrics", [] { return HttpReply{.body = "baton_x 1\n"}; }},
                              {"/ready", [] {
                                 return HttpReply{503, "not yet\n", "text/plain"};
                               }}});
  if (!endpoint) return endpoint.error().message;
  tcp::socket socket(io);
  socket.connect({boost::asio::ip::make_address("127.0.0.1"), (*endpoint)->port()});
  boost::asio::write(socket, boost::asio::buffer(request));
  std::string reply;
  bool done = false;
  boost::asio::async_read(socket, boost::asio::dynamic_buffer(reply),
                          [&](boost::system::error_code, size_t) { done = true; });
  const auto end = Clock::now() + seconds(7);
  while (!done && Clock::now() < end) io.run_one_for(milliseconds(10));
  return reply;
}

TEST(HttpEndpoint, ServesItsPaths) {
  const auto reply = exchange("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(reply.rfind("HTTP/1.1 200", 0), 0u) << reply;
  EXPECT_NE(reply.find("baton_x 1"), std::string::npos);
  EXPECT_EQ(exchange("GET /ready HTTP/1.0\r\n\r\n").rfind("HTTP/1.0 503", 0), 0u);
}

TEST(HttpEndpoint, RefusesOthers) {
  EXPECT_EQ(exchange("GET /etc HTTP/1.0\r\n\r\n").rfind("HTTP/1.0 404", 0), 0u);
  EXPECT_EQ(exchange("DELETE /metrics HTTP/1.0\r\n\r\n").rfind("HTTP/1.0 405", 0), 0u);
  const auto head = exchange("HEAD /metrics HTTP/1.0\r\n\r\n");
  EXPECT_EQ(head.rfind("HTTP/1.0 200", 0), 0u);
  EXPECT_EQ(head.find("baton_x"), std::string::npos);
}

TEST(HttpEndpoint, ClosesOnGarbageAndGiantHeaders) {
  EXPECT_EQ(exchange("\x16\x03\x01 nonsense\r\n\r\n"), "");
  EXPECT_EQ(exchange("GET /metrics HTTP/1.1\r\nX: " + std::string(20000, 'a') + "\r\n\r\n"), "");
}

// Lets no more descriptors be opened while it lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int next = ::dup(0);
    ::close(next);
    rlimit none = before_;
    none.rlim_cur = static_cast<rlim_t>(next);
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(HttpEndpoint, WaitsWhileThereAreNoDescriptors) {
  boost::asio::io_context io;
  const auto endpoint =
      serve_http(io, "127.0.0.1:0", {{"/ready", [] { return HttpReply{.body = "yes\n"}; }}});
  ASSERT_TRUE(endpoint);
  tcp::socket socket(io, tcp::v4());
  size_t handlers = 0;
  {
    const NoDescriptors none;
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), (*endpoint)->port()});
    handlers = io.run_for(milliseconds(250));
  }
  EXPECT_GE(handlers, 1u);
  EXPECT_LE(handlers, 8u);  // two a try, 100 ms apart
  boost::asio::write(socket, boost::asio::buffer(std::string("GET /ready HTTP/1.0\r\n\r\n")));
  std::string reply;
  bool done = false;
  boost::asio::async_read(socket, boost::asio::dynamic_buffer(reply),
                          [&](boost::system::error_code, size_t) { done = true; });
  const auto end = Clock::now() + seconds(10);
  while (!done && Clock::now() < end) io.run_one_for(milliseconds(10));
  EXPECT_NE(reply.find("yes"), std::string::npos);
}

}  // namespace
}  // namespace baton::net
