#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/proto/otlp.pb.h"
#include "router/traces/trace_config.h"

namespace baton::router {

// Takes traces over HTTP, or fails to as it is told: one fault a connection, then it is well.
class FakeCollector {
 public:
  // kRejects: takes all but three spans.
  enum class Fault { kNone, kBusy, kRefuses, kHangsUp, kSilent, kRejects };
  using Request = boost::beast::http::request<boost::beast::http::string_body>;

  explicit FakeCollector(std::vector<Fault> faults = {}, uint16_t port = 0)
      : faults_(faults.begin(), faults.end()),
        acceptor_(io_, {boost::asio::ip::address_v4::loopback(), port}),
        thread_([this] { serve(); }) {}
  ~FakeCollector() {
    stopping_ = true;
    boost::asio::ip::tcp::socket bell(io_);
    boost::system::error_code ignored;
    bell.connect({boost::asio::ip::address_v4::loopback(), port()}, ignored);
    thread_.join();
  }

  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  OtlpEndpoint endpoint() const { return {"127.0.0.1", std::to_string(port()), "/v1/traces"}; }

  std::vector<Request> requests() const {  // all that were read, whatever became of them
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  // Ids of the requests whose spans were taken, in order.
  std::vector<std::string> taken() const {
    const std::lock_guard lock(mutex_);
    return taken_;
  }

 private:
  void serve() {
    while (true) {
      boost::asio::ip::tcp::socket socket(io_);
      boost::system::error_code failed;
      acceptor_.accept(socket, failed);
      if (failed || stopping_) return;
      Fault fault = Fault::kNone;
      if (!faults_.empty()) {
        fault = faults_.front();
        faults_.pop_front();
      }
      if (fault == Fault::kHangsUp) continue;
      answer(socket, fault);
      if (fault == Fault::kSilent) kept_.push_back(std::move(socket));
    }
  }

  void answer(boost::asio::ip::tcp::socket& socket, Fault fault) {
    namespace http = boost::beast::http;
    boost::beast::flat_buffer buffer;
    Request request;
    boost::system::error_code failed;
    http::read(socket, buffer, request, failed);
    if (failed) return;
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    if (fault == Fault::kSilent) return;
    http::response<http::string_body> reply(http::status::ok, 11);
    if (fault == Fault::kBusy) reply.result(http::status::service_unavailable);
    if (fault == Fault::kRefuses) reply.result(http::status::bad_request);
    if (fault == Fault::kRejects) {
      otlp::ExportTraceServiceResponse partial;
      partial.mutable_partial_success()->set_rejected_spans(3);
      reply.body() = partial.SerializeAsString();
    }
    reply.prepare_payload();
    if (fault == Fault::kNone) take(request.body());
    http::write(socket, reply, failed);
  }

  void take(const std::string& body) {
    otlp::ExportTraceServiceRequest spans;
    if (!spans.ParseFromString(body)) return;
    for (const auto& span : spans.resource_spans(0).scope_spans(0).spans()) {
      for (const auto& attribute : span.attributes()) {
        if (attribute.key() == "baton.request_id") {
          taken_.push_back(attribute.value().string_value());
        }
      }
    }
  }

  std::deque<Fault> faults_;
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::vector<boost::asio::ip::tcp::socket> kept_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<Request> requests_;
  std::vector<std::string> taken_;
  std::thread thread_;
};

}  // namespace baton::router
