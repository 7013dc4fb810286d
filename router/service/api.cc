#include "router/service/api.h"

#include <fmt/format.h>

#include <utility>

#include "common/formats/utf8.h"
#include "common/net/rpc.h"
#include "router/tenants/tenant_slo.h"

namespace baton::router {
namespace {

// A body of this size takes about a millisecond to parse and tokenize; beyond it streams would
// notice.
constexpr size_t kLongBodyBytes = size_t{8} << 10;

bool listens_on_loopback(const HttpOptions& http) {
  const auto where = net::split_host_port(http.address);
  return where && net::is_loopback(where->host);
}

std::string_view refusal_label(const ApiError& error) {
  switch (error.status) {
    case HttpStatus::kUnauthorized:
      return "unauthorized";
    case HttpStatus::kNotFound:
      return "not_found";
    case HttpStatus::kMethodNotAllowed:
      return "method";
    case HttpStatus::kServiceUnavailable:
      return "overloaded";
    case HttpStatus::kTooManyRequests:
      return "quota";
    default:
      return error.status < HttpStatus::kInternalServerError ? "invalid" : "error";
  }
}

}  // namespace

struct Api::Route {
  std::string_view path;
  std::string_view method;
  Door door;
  bool prefix;  // what follows the path is an argument
  void (Api::*answer)(std::string body, ExchangePtr exchange);
};

const Api::Route* Api::find_route(std::string_view path) {
  static constexpr Route kRoutes[] = {
      {"/v1/chat/completions", "POST", Door::kKey, false, &Api::chat},
      {"/v1/completions", "POST", Door::kKey, false, &Api::complete},
      {"/v1/models", "GET", Door::kKey, false, &Api::list_models},
      {"/v1/models/", "GET", Door::kKey, true, &Api::show_model},
      {"/tokenize", "POST", Door::kKey, false, &Api::tokenize},
      {"/detokenize", "POST", Door::kKey, false, &Api::detokenize},
      {"/health", "GET", Door::kOpen, false, &Api::health},
      {"/ready", "GET", Door::kOpen, false, &Api::ready},
      {"/version", "GET", Door::kOpen, false, &Api::version},
      {"/metrics", "GET", Door::kOpen, false, &Api::metrics},
      {"/debug/requests", "GET", Door::kAdmin, false, &Api::debug_requests},
      {"/debug/state", "GET", Door::kView, false, &Api::state},
      {"/", "GET", Door::kOpen, false, &Api::page},
  };
  for (const Route& route : kRoutes) {
    if (route.prefix ? path.starts_with(route.path) : path == route.path) return &route;
  }
  return nullptr;
}

Api::Api(boost::asio::io_context& io, const RouterConfig& config, const ModelMap& models,
         Cluster& cluster, RouterMetrics& metrics, LiveView& live, RequestRecord* record)
    : limits_(config.limits),
      slo_classes_(config.slo_classes),
      request_deadline_(config.request_deadline),
      models_(models),
      cluster_(cluster),
      metrics_(metrics),
      live_(live),
      record_(record),
      access_(config.access, Clock::now()),
      hosts_(config.allowed_hosts, listens_on_loopback(config.http)),
      has_metrics_(config.metrics_listen.empty()),
      bodies_(io, config.max_waiting_body_bytes) {
  limits_.max_body_bytes = config.http.max_body_bytes;
}

bool Api::exists(const Route& route) const {
  if (route.answer == &Api::metrics && !has_metrics_) return false;
  return access_.exists(route.door);
}

HttpHandlers Api::handlers() {
  return {[this](const HttpHead& head) { return gate(head); },
          [this](std::string body, ExchangePtr exchange) {
            handle(std::move(body), std::move(exchange));
          }};
}

std::optional<HttpReply> Api::gate(const HttpHead& head) {
  const auto refused = [&](const ApiError& error) {
    metrics_.refused(refusal_label(error));
    return error_reply(error);
  };
  if (const api_status ours = hosts_.check(head, access_.is_open()); !ours) {
    return refused(ours.error());
  }
  const Route* route = find_route(head.path);
  if (!route || !exists(*route)) {
    return refused({.status = HttpStatus::kNotFound,
                    .message = fmt::format("There is no path {}", head.path),
                    .code = "not_found"});
  }
  const bool head_of_get = head.method == "HEAD" && route->method == "GET";
  if (head.method != route->method && !head_of_get) {
    HttpReply reply = refused(
        {.status = HttpStatus::kMethodNotAllowed,
         .message = fmt::format("{} takes {}, not {}", head.path, route->method, head.method),
         .code = "method_not_allowed"});
    reply.headers += fmt::format("allow: {}\r\n", route->method == "GET" ? "GET, HEAD" : "POST");
    return reply;
  }
  if (const api_status passed = access_.check(route->door, head.authorization); !passed) {
    return refused(passed.error());
  }
  return std::nullopt;
}

void Api::set_access(const AccessConfig& access) { access_.set(access, Clock::now()); }

void Api::handle(std::string body, ExchangePtr exchange) {
  if (const auto tenant = access_.tenant_of(exchange->head().authorization)) {
    exchange->facts().tenant = tenant->config().name;
  }
  const Route* route = find_route(exchange->head().path);
  (this->*route->answer)(std::move(body), std::move(exchange));
}

void Api::refuse(const ExchangePtr& exchange, const ApiError& error) {
  metrics_.refused(refusal_label(error));
  exchange->facts().refused = refusal_label(error);
  exchange->reply(error_reply(error));
}

// --- generation ----------------------------------------------------------------------------------

void Api::chat(std::string body, ExchangePtr exchange) {
  generate(Job::Api::kChat, std::move(body), std::move(exchange));
}

void Api::complete(std::string body, ExchangePtr exchange) {
  generate(Job::Api::kCompletions, std::move(body), std::move(exchange));
}

api_result<const ServedModel*> Api::find_model(const std::string& name) const {
  const auto it = models_.find(name);
  if (it == models_.end()) return model_not_found(formats::printable(name));
  return &it->second;
}

api_result<const ServedModel*> Api::find_model_or_only(const std::string& name) const {
  if (!name.empty()) return find_model(name);
  if (models_.size() != 1) return bad_field("model", "is required");
  return &models_.begin()->second;
}

api_result<Api::Prepared> Api::prepare(Job::Api api, std::string_view body) const {
  Prepared out;
  if (api == Job::Api::kChat) {
    BATON_TRY(ChatRequest request, parse_chat_request(body, limits_));
    BATON_TRY(out.model, find_model(request.model));
    BATON_TRY(out.job, encode_job(std::move(request), *out.model));
  } else {
    BATON_TRY(CompletionRequest request, parse_completion_request(body, limits_));
    BATON_TRY(out.model, find_model(request.model));
    BATON_TRY(out.job, encode_job(std::move(request), *out.model));
  }
  return out;
}

void Api::read_body(std::string body, const ExchangePtr& exchange, Read read) {
  if (body.size() <= kLongBodyBytes) return read(body)();
  const size_t bytes = body.size();
  auto whole = [body = std::make_shared<const std::string>(std::move(body)),
                read = std::move(read)] { return read(*body); };
  if (!bodies_.read(exchange, bytes, std::move(whole))) {
    refuse(exchange, overloaded("too many long requests wait to be read"));
  }
}

// Whose it is, and whether that one may have one more.
api_result<std::shared_ptr<Admission>> Api::admit(const HttpHead& head) {
  if (!access_.has_tenants()) return std::shared_ptr<Admission>();
  const auto tenant = access_.tenant_of(head.authorization);
  if (!tenant) return AccessControl::unknown_key(Door::kKey);  // since its header came
  const TimePoint now = Clock::now();
  if (const auto over = tenant->refusal(now)) {
    metrics_.tenants().over_quota(tenant->config().name, over->quota);
    return from_quota(tenant->config(), *over);
  }
  return tenant->admit(now);
}

// One request is as many as it has answers.
api_status Api::widen(Admission& admission, uint32_t answers) {
  const TenantConfig& tenant = admission.tenant();
  const uint32_t most = tenant.limits.max_concurrent;
  if (most > 0 && answers > most) {
    return bad_field("n", fmt::format("asks, with its prompts, for {} answers; the tenant '{}' may "
                                      "have {} at once",
                                      answers, tenant.name, most));
  }
  const auto over = admission.widen(answers, Clock::now());
  if (!over) return {};
  metrics_.tenants().over_quota(tenant.name, over->quota);
  return from_quota(tenant, *over);
}

void Api::generate(Job::Api api, std::string body, ExchangePtr exchange) {
  auto admission = admit(exchange->head());
  if (!admission) return refuse(exchange, admission.error());
  read_body(std::move(body), exchange,
            [this, api, exchange, place = std::move(*admission)](std::string_view text) {
              return [this, exchange, place = place, prepared = prepare(api, text)]() mutable {
                start(std::move(prepared), std::move(place), exchange);
              };
            });
}

api_result<RequestSlo> Api::promise(const HttpHead& head, const Job& job,
                                    const Admission* admission) const {
  if (admission == nullptr) {
    return choose_slo(slo_classes_, head.slo, job.service_tier, head.received);
  }
  return choose_tenant_slo(admission->tenant(), slo_classes_, head.slo, job.service_tier,
                           head.received);
}

void Api::start(api_result<Prepared> prepared, std::shared_ptr<Admission> admission,
                ExchangePtr exchange) {
  if (!prepared) return refuse(exchange, prepared.error());
  const ServedModel& model = *prepared->model;
  const HttpHead& head = exchange->head();
  Job& job = prepared->job;
  const auto slo = promise(head, job, admission.get());
  if (!slo) return refuse(exchange, slo.error());
  const auto turn_away = [&](const ApiError& error) {
    if (error.status < HttpStatus::kInternalServerError) return refuse(exchange, error);
    const SloResult result = is_overload(error) ? SloResult::kRefused : SloResult::kFailed;
    metrics_.ended(slo->class_index, result);
    exchange->facts().slo_class = slo_classes_[slo->class_index].name;
    exchange->facts().slo_result = name(result);
    refuse(exchange, error);
  };
  const auto capacity = cluster_.dispatcher().pool().capacity(model.name());
  if (!capacity) {
    return turn_away(overloaded(fmt::format("No worker serves the model '{}' yet", model.name())));
  }
  if (const api_status admitted = admit_job(job, *capacity); !admitted) {
    return refuse(exchange, admitted.error());
  }
  if (admission) {
    if (const api_status wide = widen(*admission, job.num_choices()); !wide) {
      return refuse(exchange, wide.error());
    }
    job.cache_salt = admission->tenant().salt(job.cache_salt);
  }
  const TimePoint deadline = head.received + request_deadline_;
  const api_status begun = Generation::start(
      {cluster_, metrics_, model, capacity->fingerprint, deadline, *slo,
       slo_classes_[slo->class_index].name, record_, &live_.recent(), std::move(admission)},
      std::move(job), exchange);
  if (!begun) turn_away(begun.error());
}

}  // namespace baton::router
