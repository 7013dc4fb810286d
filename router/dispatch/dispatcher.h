#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "router/dispatch/actions.h"
#include "router/dispatch/pair_traffic.h"
#include "router/dispatch/request_state.h"
#include "router/dispatch/request_view.h"
#include "router/placement/output_lengths.h"
#include "router/placement/placement.h"
#include "router/placement/worker_pool.h"
#include "router/roles/role_keeper.h"

namespace baton::router {

struct DispatchLimits {
  size_t max_queued = 1024;              // requests that wait for a worker
  Duration queue_timeout = seconds(60);  // of a request's first placement
  Duration reserve_timeout = seconds(2);
  uint32_t max_retries = 2;       // of a leg, after failures; and as often another may read its KV
  uint32_t max_preemptions = 32;  // of a leg
  Duration min_backoff = milliseconds(5);  // of a worker that is full
  Duration max_backoff = seconds(1);
  // How long KV that lost its decode worker waits for another; then it is computed anew. Below the
  // workers' park_timeout.
  Duration keep_kv = seconds(5);
};

// Requests of one model.
struct ModelLoad {
  size_t running = 0;  // placed on workers, at least in part
  size_t waiting = 0;
};

// Carries requests through the workers: places, reserves, submits, merges their tokens, retries and
// resumes. Pure: events come in with their time, actions go out; it has no thread, socket or clock.
// Every request that submit() took ends with exactly one RequestEnded or one cancel().
class Dispatcher {
 public:
  // `first_id`: ids on the wire count up from it; two routers' ids must not meet.
  Dispatcher(RequestId first_id, DispatchLimits limits, PlacementOptions placement = {});

  // From now on moves the roles of workers that are auto, while it leads. `self` is the router's
  // id, as workers know it. tick() is then called while idle(), too.
  void keep_roles(RouterId self, const RoleOptions& options);

  // --- workers ---
  // kInvalidArgument: refused, and why. `address`: where other workers pair with it.
  status worker_joined(const proto::WorkerHello& hello, std::string address, TimePoint now,
                       Actions& actions);
  void worker_lost(WorkerId worker, TimePoint now, Actions& actions);
  // Drops what is stale or does not come from a worker of that leg.
  void on_frame(WorkerId from, proto::Frame&& frame, TimePoint now, Actions& actions);

  // --- requests ---
  // kResourceExhausted if the queue is full, kUnavailable if no worker of the model was ever there.
  // One that is refused for its targets was taken, and ends at once: RequestEnded says why.
  result<RequestId> submit(RequestInput input, TimePoint now, Actions& actions);
  // The client is gone: nothing more is said about the request.
  std::optional<RequestTrail> cancel(RequestId request, TimePoint now, Actions& actions);
  // The router itself ends one choice (a stop string). The last one ends the request.
  void stop_choice(RequestId request, uint32_t choice, TimePoint now, Actions& actions);

  // Deadlines, and waiting requests; to be called every 20 ms or so while not idle().
  void tick(TimePoint now, Actions& actions);

  // --- views ---
  const WorkerPool& pool() const { return pool_; }
  bool idle() const { return requests_.empty(); }
  size_t num_requests() const { return requests_.size(); }
  size_t num_queued() const;  // legs that wait for room
  std::map<std::string, ModelLoad> loads() const;
  size_t num_legs() const { return legs_.size(); }
  // The requests that are here longest, these first.
  std::vector<RequestView> oldest(size_t most) const;
  uint64_t refusals() const { return refusals_; }          // by workers, for want of room
  uint64_t stale_events() const { return stale_events_; }  // dropped
  const PairTraffic& traffic() const { return traffic_; }
  const PlacementOptions& placement() const { return placer_.options(); }
  const RoleKeeper* roles() const { return roles_ ? &*roles_ : nullptr; }

 private:
  RequestState& request_of(const Leg& leg) { return *leg.whole; }
  const RequestState& request_of(const Leg& leg) const { return *leg.whole; }

  // dispatcher.cc
  void send_peers(Actions& actions);
  void end_request(RequestId id, std::optional<Error> why, Actions& actions);
  void end_if_done(RequestId id, Actions& actions);
  Leg& new_leg(RequestState& request, RequestId request_id, RequestId id);
  void drop_leg(Leg& leg, bool cancel, Actions& actions);
  void drop_legs(RequestState& request, Actions& actions);
  void end_late_requests(TimePoint now, Actions& actions);
  void end_late_legs(TimePoint now, Actions& actions);
  void note_deadline(TimePoint at) { next_deadline_ = std::min(next_deadline_, at); }
  void time_out(Leg& leg, TimePoint now, Actions& actions);
  void order_roles(TimePoint now, Actions& actions);

  // dispatcher_place.cc
  using Turn = std::tuple<TimePoint, uint64_t, RequestId>;
  Turn turn_of(const Leg& leg) const;
  void enqueue(const Leg& leg);
  bool is_gone(SetId set) const { return set != SetId{} && !pool_.is_there(set); }
  void fetch_stranded();
  void unqueue(const Leg& leg);
  void pump(TimePoint now, Actions& actions);
  void pump_queues(TimePoint now, Actions& actions);
  void pump_queue(std::string_view model, std::set<Turn>& queue, TimePoint now, Actions& actions);
  SetId bound_to(const Leg& leg) const;
  SetId set_for(const Leg& leg) const;
  Error why_unplaced(const Leg& leg) const;
  PlacementQuery make_query(const Leg& leg, TimePoint now);
  std::optional<Decision> choose(Leg& leg, PlacementQuery& query);
  bool must_wait(const Leg& leg, const Decision& decision, TimePoint now) const;
  bool try_to_place(Leg& leg, TimePoint now, Actions& actions);
  void admit(Leg& leg, TimePoint now, Actions& actions);
  void refuse(RequestId id, Refusal refusal, TimePoint now, Actions& actions);
  bool refuse_at_decode(const Leg& leg, TimePoint now, Actions& actions);
  void note_placed(Leg& leg, const Decision& decision, TimePoint now);
  void forget_stream(const Leg& leg);
  void note_first_token(RequestState& request, TimePoint now);
  void learn_from(const RequestState& request);
  void note_arrival(const Leg& leg, TimePoint now);

  // dispatcher_legs.cc
  bool ends_at_first(const Leg& leg) const;
  void start_leg(Leg& leg, const Decision& decision, TimePoint now, Actions& actions);
  void submit_leg(Leg& leg, TimePoint now, Actions& actions);
  void retarget_leg(Leg& leg, Actions& actions);
  void settle_prompt(Leg& leg);
  void release(Leg& leg);
  void cancel_on_workers(const Leg& leg, std::optional<uint32_t> choice, Actions& actions);
  void cancel_on(WorkerId worker, const Leg& leg, Generation generation,
                 std::optional<uint32_t> choice, Actions& actions);
  bool leg_ended(const Leg& leg) const;

  // dispatcher_view.cc
  RequestView view_of(const RequestState& request) const;

  // dispatcher_recovery.cc
  void refuse_leg(Leg& leg, WorkerId by, Duration retry_after, TimePoint now, Actions& actions);
  void fail_leg(Leg& leg, WorkerId by, const Error& why, TimePoint now, Actions& actions);
  bool seek_sink(Leg& leg, WorkerId lost, TimePoint now, Actions& actions);
  void move_from_draining(TimePoint now, Actions& actions);
  bool move_leg(Leg& leg, TimePoint now, Actions& actions);
  void leave_decode(Leg& leg, Actions& actions);
  void give_up_kv(Leg& leg, TimePoint now, Actions& actions);
  void restart_leg(Leg& leg, TimePoint now, Actions& actions);
  void split_leg(Leg& leg, TimePoint now, Actions& actions);
  void preempt_choice(Leg& leg, uint32_t choice, TimePoint now, Actions& actions);
  void move_choice(const Leg& from, uint32_t choice, TimePoint now, Actions& actions);
  void aim_leg(Leg& leg, TimePoint now);
  bool end_unspoken(RequestId request, uint32_t choice, Actions& actions);
  bool prefill_is_over(const Leg& leg) const;

  // dispatcher_events.cc
  Leg* find_leg(WorkerId from, uint64_t id, uint64_t generation);
  void on_reserve_reply(WorkerId from, const proto::ReserveReply& reply, TimePoint now,
                        Actions& actions);
  void on_place_in_line(Leg& leg, const proto::ReserveReply& reply, TimePoint now,
                        Actions& actions);
  void on_token(WorkerId from, proto::TokenEvent&& event, TimePoint now, Actions& actions);
  void note_delivered(RequestState& request, uint32_t choice, uint32_t tokens, TimePoint now);
  void on_prefill_done(WorkerId from, proto::PrefillDone&& done, Actions& actions);
  void on_handed_off(WorkerId from, const proto::HandedOff& done, TimePoint now);
  void on_first_step(WorkerId from, const proto::FirstStep& step);
  void on_finished(WorkerId from, const proto::Finished& finished, Actions& actions);
  void on_failed(WorkerId from, const proto::Failed& failed, TimePoint now, Actions& actions);
  void on_sink_lost(WorkerId from, const proto::SinkLost& lost, TimePoint now, Actions& actions);
  void on_preempted(WorkerId from, const proto::Preempted& preempted, TimePoint now,
                    Actions& actions);
  void on_load(WorkerId from, proto::Load&& load, TimePoint now, Actions& actions);
  void choice_ended(Leg& leg, uint32_t choice, Actions& actions);

  DispatchLimits limits_;
  uint64_t next_id_;
  uint64_t next_arrival_ = 0;
  uint64_t turn_ = 0;
  WorkerPool pool_;
  Placer placer_;
  OutputLengths lengths_;
  PrefixMap prefixes_;
  PairTraffic traffic_;
  std::optional<RoleKeeper> roles_;
  std::vector<PrefixMap::Match> matches_;                 // scratch
  std::map<WorkerId, std::vector<WorkerId>> peers_sent_;  // to decode workers
  std::unordered_map<RequestId, RequestState> requests_;
  std::unordered_map<RequestId, Leg> legs_;
  // Legs that wait for room, by model; the earliest due first, of these the oldest request.
  std::map<std::string, std::set<Turn>> queues_;
  // Legs that nobody can serve until workers of their set come: they keep nobody waiting.
  std::map<SetId, std::set<RequestId>> stranded_;
  std::set<RequestId> seeking_;                 // legs whose KV waits for a decode worker
  TimePoint next_deadline_ = TimePoint::max();  // none of a request or leg is before it
  std::vector<proto::TokenEvent> ready_;        // scratch
  uint64_t refusals_ = 0;
  uint64_t stale_events_ = 0;
};

}  // namespace baton::router
