#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "router/http/server.h"
#include "router/page/live_page.h"
#include "router/service/access_control.h"
#include "router/service/body_reader.h"
#include "router/service/cluster.h"
#include "router/service/config.h"
#include "router/service/generation.h"
#include "router/service/host_check.h"
#include "router/service/live_view.h"
#include "router/service/router_metrics.h"
#include "router/text/job.h"

namespace baton::router {

using ModelMap = std::map<std::string, ServedModel, std::less<>>;

// The paths of the server and what each does. On the thread of the io_context, but for long bodies,
// which are parsed and tokenized on a thread of their own.
class Api {
 public:
  // All references outlive it. `record`: of each request; null: none is kept.
  Api(boost::asio::io_context& io, const RouterConfig& config, const ModelMap& models,
      Cluster& cluster, RouterMetrics& metrics, LiveView& live, RequestRecord* record = nullptr);

  HttpHandlers handlers();
  void set_access(const AccessConfig& access);
  // Some model has a mixed worker or a pair that can serve it, and it does not drain.
  bool is_ready() const;
  // The text of /metrics. What it shows of a tenant that is no more, it shows for the last time.
  std::string exposition();
  // It is not ready from here on; all else is served as before.
  void set_draining() { draining_ = true; }

 private:
  struct Route;
  using ExchangePtr = std::shared_ptr<Exchange>;

  static const Route* find_route(std::string_view path);
  bool exists(const Route& route) const;
  std::optional<HttpReply> gate(const HttpHead& head);
  void handle(std::string body, ExchangePtr exchange);

  void list_models(std::string body, ExchangePtr exchange);
  void show_model(std::string body, ExchangePtr exchange);
  void chat(std::string body, ExchangePtr exchange);
  void complete(std::string body, ExchangePtr exchange);
  void tokenize(std::string body, ExchangePtr exchange);
  void detokenize(std::string body, ExchangePtr exchange);
  void health(std::string body, ExchangePtr exchange);
  void ready(std::string body, ExchangePtr exchange);
  void version(std::string body, ExchangePtr exchange);
  void metrics(std::string body, ExchangePtr exchange);
  void debug_requests(std::string body, ExchangePtr exchange);
  void page(std::string body, ExchangePtr exchange);
  void state(std::string body, ExchangePtr exchange);

  // Makes something of a body, on whichever thread, and says what becomes of it on ours.
  using Read = std::function<BodyReader::Then(std::string_view body)>;
  void read_body(std::string body, const ExchangePtr& exchange, Read read);

  // What parsing and tokenizing made of a body.
  struct Prepared {
    Job job;
    const ServedModel* model = nullptr;
  };
  api_result<Prepared> prepare(Job::Api api, std::string_view body) const;
  // The answer of /tokenize, without its beginning: the model's limits are known on our thread.
  struct Tokenized {
    const ServedModel* model = nullptr;
    std::string rest;
  };
  api_result<Tokenized> tokenize_body(std::string_view body) const;
  api_result<std::string> detokenize_body(std::string_view body) const;
  api_result<const ServedModel*> find_model(const std::string& name) const;
  api_result<const ServedModel*> find_model_or_only(const std::string& name) const;
  void generate(Job::Api api, std::string body, ExchangePtr exchange);
  api_result<std::shared_ptr<Admission>> admit(const HttpHead& head);
  api_status widen(Admission& admission, uint32_t answers);
  api_result<RequestSlo> promise(const HttpHead& head, const Job& job,
                                 const Admission* admission) const;
  // `admission`: null without tenants.
  void start(api_result<Prepared> prepared, std::shared_ptr<Admission> admission,
             ExchangePtr exchange);
  void refuse(const ExchangePtr& exchange, const ApiError& error);
  void append_model(std::string& out, const ServedModel& model) const;

  RequestLimits limits_;
  SloClasses slo_classes_;
  Duration request_deadline_;
  const ModelMap& models_;
  Cluster& cluster_;
  RouterMetrics& metrics_;
  LiveView& live_;
  const LivePage page_;
  RequestRecord* const record_;
  AccessControl access_;
  const HostCheck hosts_;
  const bool has_metrics_;  // here, not on a port of their own
  bool draining_ = false;
  BodyReader bodies_;  // last: its thread uses the above
};

}  // namespace baton::router
