#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "router/http/exchange.h"
#include "router/openai/answer_format.h"
#include "router/page/recent_requests.h"
#include "router/placement/attainment.h"
#include "router/service/cluster.h"
#include "router/service/request_record.h"
#include "router/service/router_metrics.h"
#include "router/tenants/tenant.h"
#include "router/text/choice_text.h"
#include "router/text/job.h"

namespace baton::router {

// One call of the completions or chat API, from admission to the last byte: its prompts' requests
// on the cluster on one side, its answer on the other.
class Generation final : public RequestListener, public std::enable_shared_from_this<Generation> {
 public:
  struct Context {
    Cluster& cluster;
    RouterMetrics& metrics;
    const ServedModel& model;
    std::string fingerprint;  // of the workers' weights and arithmetic
    TimePoint deadline;
    RequestSlo slo;
    std::string slo_class;                           // its name
    RequestRecord* record = nullptr;                 // null: none is kept
    RecentRequests* recent = nullptr;                // null: likewise
    std::shared_ptr<Admission> admission = nullptr;  // its tenant's; null: there are none
  };

  // Submits the (admitted) job's prompts; answers through the exchange, later errors too. An error:
  // the cluster does not take it, nothing was answered.
  static api_status start(Context context, Job job, std::shared_ptr<Exchange> exchange);

  Generation(Context context, Job job, std::shared_ptr<Exchange> exchange);

  void on_token(uint32_t part, uint32_t choice, const proto::TokenEvent& event) override;
  void on_prompt_scores(uint32_t part, std::vector<proto::PromptScore> scores) override;
  void on_choice_ended(uint32_t part, uint32_t choice, const ChoiceEnd& end) override;
  void on_ended(uint32_t part, const RequestEnded& ended) override;
  void on_batch_end() override;

 private:
  // A prompt and what came for it.
  struct Part {
    RequestId request;
    bool ended = false;
    bool opened = false;                  // the prompt is echoed, or need not be
    std::vector<proto::TokenEvent> held;  // came before the prompt's scores
    std::vector<std::pair<uint32_t, ChoiceEnd>> held_ends;
    uint32_t cached_tokens = 0;
  };
  api_status submit();
  void open(Part& part, uint32_t index, const std::vector<proto::PromptScore>& scores);
  void add_token(uint32_t part, const proto::TokenEvent& event, TimePoint now);
  void time_token(size_t choice, TimePoint now);
  void end_choice(uint32_t part, uint32_t choice, const ChoiceEnd& end);
  void write(ChoiceText& text);
  void complete();
  void refuse(const Refusal& refusal);
  void fail(const ApiError& error);
  void end_with(const ApiError& error, SloResult result);
  void give_up(std::string_view why);
  void cancel_parts();
  void observe(uint32_t part, const RequestTrail& trail);
  void keep_trail(const RequestTrail& trail);
  void account(std::string_view finish, SloResult result);
  void note(std::string_view finish, SloResult result);
  void settle_quota(SloResult result);
  void record(std::string_view finish);
  void show(std::string_view finish, SloResult result);
  bool is_silent(TokenId token) const;
  Measured measured() const;
  SloResult attained_now() const { return attained(context_.slo.target, measured()); }
  Usage usage() const;
  std::optional<Timings> timings() const;

  Context context_;
  ModelMetrics& series_;
  Job job_;
  std::shared_ptr<Exchange> exchange_;
  AnswerFormat format_;
  std::vector<Part> parts_;
  std::vector<ChoiceText> texts_;  // [part * n + choice]
  std::vector<TokenTimes> times_;  // likewise
  std::vector<bool> role_told_;    // likewise
  uint32_t completion_tokens_ = 0;
  uint32_t parts_ended_ = 0;
  bool over_ = false;
  RequestTrail trail_;  // of the last part that ended, bytes and counts of all
};

}  // namespace baton::router
