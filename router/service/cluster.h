#pragma once

#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "router/dispatch/dispatcher.h"
#include "router/service/name_watch.h"
#include "router/service/slice_watch.h"
#include "router/service/worker_link.h"

namespace baton::router {

// Hears what becomes of requests. `part` is the number that submit() was given. A listener may call
// the cluster from inside any of these.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  virtual void on_token(uint32_t part, uint32_t choice, const proto::TokenEvent& event) = 0;
  virtual void on_prompt_scores(uint32_t part, std::vector<proto::PromptScore> scores) = 0;
  virtual void on_choice_ended(uint32_t part, uint32_t choice, const ChoiceEnd& end) = 0;
  virtual void on_ended(uint32_t part, const RequestEnded& ended) = 0;
  // What came in together for this one has been told: time to write.
  virtual void on_batch_end() = 0;

 private:
  friend class Cluster;
  bool touched_ = false;  // told something that came in together with what is being told now
};

// Where workers are looked for.
struct WorkerSources {
  std::vector<std::string> places;          // see parse_worker_place; what that refuses is left out
  std::optional<KubernetesApi> kubernetes;  // without it, so are Services
};

// Drives the dispatcher: with the workers' connections and the clock on one side, the listeners on
// the other. On the thread of the io_context.
class Cluster {
 public:
  Cluster(boost::asio::io_context& io, const WorkerSources& sources, DispatchLimits limits,
          PlacementOptions placement, const std::optional<RoleOptions>& roles,
          const net::RpcOptions& rpc);
  ~Cluster();

  // A worker's hello is put to `check` after the dispatcher's own checks.
  void set_hello_check(std::function<status(const proto::WorkerHello&)> check);

  // Errors as Dispatcher::submit.
  result<RequestId> submit(RequestInput input, std::shared_ptr<RequestListener> listener,
                           uint32_t part);
  // The listener hears no more of it.
  std::optional<RequestTrail> cancel(RequestId request);
  void stop_choice(RequestId request, uint32_t choice);

  const Dispatcher& dispatcher() const { return dispatcher_; }
  const std::vector<std::unique_ptr<WorkerLink>>& links() const { return links_; }
  // Those that the Kubernetes API is asked of.
  const std::vector<std::unique_ptr<SliceWatch>>& services() const { return services_; }

 private:
  struct Listening {
    std::shared_ptr<RequestListener> listener;
    uint32_t part = 0;
  };

  WorkerLink::Handlers link_handlers();
  void tell_of_sets(const proto::WorkerHello& hello) const;
  status check_alone(const proto::WorkerHello& hello) const;
  void add_link(const std::string& address);
  void watch(const WorkerPlace& place, const std::optional<KubernetesApi>& kubernetes);
  void found(size_t name, const std::vector<std::string>& addresses);
  void forget_links();
  void tick();
  void carry_out();
  void end_batch();
  void tell(Output&& output);
  void touch(const std::shared_ptr<RequestListener>& listener);

  boost::asio::io_context& io_;
  const RouterId router_;
  const net::RpcOptions rpc_;
  Dispatcher dispatcher_;
  std::function<status(const proto::WorkerHello&)> check_hello_;
  std::unordered_map<RequestId, Listening> listeners_;
  Actions actions_;
  bool carrying_out_ = false;
  std::vector<std::shared_ptr<RequestListener>> touched_;
  std::shared_ptr<void> alive_ = std::make_shared<char>();  // for the timer's handler
  boost::asio::steady_timer timer_;
  size_t num_fixed_ = 0;                             // links to addresses that were given
  std::vector<std::unique_ptr<WorkerLink>> links_;   // those, then those that were found
  std::vector<std::vector<std::string>> found_;      // addresses of each name, as last seen
  bool lost_one_ = false;                            // of those links, since they were looked at
  std::vector<std::unique_ptr<NameWatch>> watches_;  // of the names
  std::vector<std::unique_ptr<SliceWatch>> services_;
};

}  // namespace baton::router
