#include "cli/ask.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>
#include <cstdio>

#include "common/net/rpc.h"

namespace baton::cli {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kMaxLine = 1 << 20;

// Takes the stream of server-sent events apart and prints what the model says.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(TimePoint sent) : sent_(sent) {}

  status take(std::string_view bytes) {
    line_.append(bytes);
    size_t begin = 0;
    for (size_t end; (end = line_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line(line_.data() + begin, end - begin);
      if (line.starts_with("data: ") && line != "data: [DONE]") {
        BATON_CHECK_OK(event(line.substr(6)));
      }
    }
    line_.erase(0, begin);
    if (line_.size() > kMaxLine) return error(Errc::kDataCorrupt, "an endless line in the answer");
    return {};
  }

  AskTimings timings() const {
    AskTimings t = timings_;
    if (!seen_) return t;
    t.ttft = first_ - sent_;
    if (t.output_tokens > 1) t.tpot = (last_ - first_) / (t.output_tokens - 1);
    return t;
  }

 private:
  status event(std::string_view text) {
    error_code ec;
    const json::value v = json::parse(text, ec);
    if (ec || !v.is_object()) return error(Errc::kDataCorrupt, "an event that is no JSON object");
    const json::object& o = v.as_object();
    if (const auto* e = o.if_contains("error")) {
      return error(Errc::kUnavailable, json::serialize(*e));
    }
    if (const auto* choices = o.if_contains("choices"); choices && choices->is_array()) {
      for (const auto& choice : choices->as_array()) print(choice);
    }
    if (const auto* usage = o.if_contains("usage"); usage && usage->is_object()) {
      timings_.prompt_tokens = number(usage->as_object(), "prompt_tokens");
      timings_.output_tokens = number(usage->as_object(), "completion_tokens");
    }
    if (const auto* extra = o.if_contains("baton"); extra && extra->is_object()) {
      timings_.kv_bytes = number(extra->as_object(), "kv_bytes");
      timings_.kv_transport = string(extra->as_object(), "kv_transport");
      timings_.prefill_worker = string(extra->as_object(), "prefill_worker");
      timings_.decode_worker = string(extra->as_object(), "decode_worker");
    }
    return {};
  }

  void print(const json::value& choice) {
    if (!choice.is_object()) return;
    const auto* delta = choice.as_object().if_contains("delta");
    if (!delta || !delta->is_object()) return;
    const std::string content = string(delta->as_object(), "content");
    if (content.empty()) return;
    last_ = Clock::now();
    if (!seen_) first_ = last_;
    seen_ = true;
    std::fwrite(content.data(), 1, content.size(), stdout);
    std::fflush(stdout);
  }

  static uint64_t number(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    error_code ec;
    return v && v->is_number() ? v->to_number<uint64_t>(ec) : 0;
  }
  static std::string string(const json::object& o, std::string_view key) {
    const auto* v = o.if_contains(key);
    return v && v->is_string() ? std::string(v->as_string()) : std::string();
  }

  const TimePoint sent_;
  TimePoint first_{}, last_{};
  bool seen_ = false;
  std::string line_;
  AskTimings timings_;
};

class Client {
 public:
  explicit Client(TimePoint deadline) : stream_(io_), deadline_(deadline) {}

  result<AskTimings> stream(const RouterAddress& router, http::request<http::string_body> request) {
    BATON_CHECK_OK(send(router, request));
    AnswerPrinter printer(Clock::now());
    BATON_CHECK_OK(read(printer));
    return printer.timings();
  }
  result<http::status> status_of(const RouterAddress& router,
                                 http::request<http::string_body> request) {
    BATON_CHECK_OK(send(router, request));
    http::response<http::string_body> response;
    error_code ec;
    http::async_read(stream_, buffer_, response, [&](error_code e, size_t) { ec = e; });
    BATON_CHECK_OK(finish(ec, "read"));
    return response.result();
  }

 private:
  status send(const RouterAddress& router, http::request<http::string_body>& request) {
    request.set(http::field::host, net::join_host_port(router.host, router.port));
    stream_.expires_at(deadline_);
    error_code ec;
    const auto endpoints = tcp::resolver(io_).resolve(router.host, std::to_string(router.port), ec);
    if (ec) return error(Errc::kUnavailable, "resolve '" + router.host + "': " + ec.message());
    stream_.async_connect(endpoints, [&](error_code e, const tcp::endpoint&) { ec = e; });
    BATON_CHECK_OK(finish(ec, "connect"));
    http::async_write(stream_, request, [&](error_code e, size_t) { ec = e; });
    return finish(ec, "send");
  }

  // Runs the one operation that was started.
  status finish(error_code& ec, const char* what) {
    io_.restart();
    io_.run();
    if (ec) return error(Errc::kUnavailable, std::string(what) + ": " + ec.message());
    return {};
  }

  status read(AnswerPrinter& printer) {
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    error_code ec;
    http::async_read_header(stream_, buffer_, parser, [&](error_code e, size_t) { ec = e; });
    BATON_CHECK_OK(finish(ec, "read"));
    const bool good = parser.get().result() == http::status::ok;
    std::string refusal;
    char chunk[4096];
    while (!parser.is_done()) {
      parser.get().body() = {chunk, sizeof(chunk), true};
      http::async_read_some(stream_, buffer_, parser, [&](error_code e, size_t) { ec = e; });
      io_.restart();
      io_.run();
      if (ec && ec != http::error::need_buffer) {
        return error(Errc::kUnavailable, "read: " + ec.message());
      }
      const std::string_view got(chunk, sizeof(chunk) - parser.get().body().size);
      if (good) {
        BATON_CHECK_OK(printer.take(got));
      } else if (refusal.size() < kMaxLine) {
        refusal.append(got);
      }
    }
    if (!good) {
      return error(Errc::kUnavailable, std::to_string(parser.get().result_int()) + ": " + refusal);
    }
    return {};
  }

  boost::asio::io_context io_;
  beast::tcp_stream stream_;
  const TimePoint deadline_;
  beast::flat_buffer buffer_;
};

}  // namespace

result<AskTimings> ask(const RouterAddress& router, const Question& question, Duration timeout) {
  http::request<http::string_body> request(http::verb::post, "/v1/chat/completions", 11);
  request.set(http::field::content_type, "application/json");
  request.set("x-baton-timings", "1");
  if (!question.api_key.empty()) {
    request.set(http::field::authorization, "Bearer " + question.api_key);
  }
  const json::object body = {
      {"model", question.model},
      {"messages", json::array{json::object{{"role", "user"}, {"content", question.prompt}}}},
      {"max_tokens", question.max_tokens},
      {"temperature", 0},
      {"stream", true},
      {"stream_options", json::object{{"include_usage", true}}}};
  request.body() = json::serialize(body);
  request.prepare_payload();
  return Client(Clock::now() + timeout).stream(router, std::move(request));
}

bool is_ready(const RouterAddress& router) {
  http::request<http::string_body> request(http::verb::get, "/ready", 11);
  const auto status =
      Client(Clock::now() + milliseconds(200)).status_of(router, std::move(request));
  return status && *status == http::status::ok;
}

}  // namespace baton::cli
