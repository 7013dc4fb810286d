#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "sim/random.h"
#include "sim/worker.h"

namespace baton::sim {

class Router;
class RouterProcess;

// A place where a worker can be reached: an address, behind which one process follows another.
struct Site {
  uint32_t index = 0;
  std::shared_ptr<Worker> worker;  // null: nobody is there
};

// The connections of control: routers to workers, and between workers that pair. Messages of one
// connection come in order and late; when it breaks, what is under way is lost, and each end hears
// of it when it does. The data between workers is the loopback hub's.
class Network {
 public:
  Network(Timeline& timeline, Random random, Duration delay)
      : timeline_(timeline), random_(random), delay_(delay) {}

  // --- routers ---
  std::vector<RouterId> routers_of(const Worker& worker) const;
  void add_router(const std::shared_ptr<Router>& router);
  void remove_router(Router& router);  // it is dead
  // --- workers ---
  Site& add_site();
  Site& site(uint32_t index) { return *sites_[index]; }
  size_t num_sites() const { return sites_.size(); }
  void worker_died(Site& site);  // before it is destroyed

  // --- messages ---
  void to_worker(const RouterProcess& from, WorkerId to, proto::Frame&& frame);
  void to_router(Worker& from, RouterId to, const proto::Frame& frame);
  void to_all_routers(Worker& from, const proto::Frame& frame);
  void gave_up(Worker& by, WorkerId peer);  // pairs anew

  // --- misfortune ---
  // One end is silent: whoever waits for it closes after `silence`.
  void break_some_link(Duration silence);
  void break_pairs(Worker& one, Worker& other, Duration silence);
  void process_sleeps(Process& process, Duration silence);
  void calm() { delay_ = microseconds(100); }

 private:
  // A router's connection to a site. Each end has the epoch in which it is connected, or 0.
  struct Link {
    std::weak_ptr<Router> router;
    Site* site = nullptr;
    uint64_t epoch = 0;  // of the connection that carries messages; 0: none
    uint64_t router_end = 0, worker_end = 0;
    WorkerId worker;  // at the other end, as the router was told
    TimePoint last_to_router{}, last_to_worker{};
  };
  // A decode worker's connection to a prefill worker that a router has named.
  struct Pair {
    std::weak_ptr<Worker> decode, prefill;
    Site* site = nullptr;
    bool closed = false, known_to_decode = false, known_to_prefill = false;
  };
  using PairPtr = std::shared_ptr<Pair>;

  void dial(Link& link);
  void accept(Link& link, uint64_t epoch);
  void break_link(Link& link, Duration router_hears, Duration worker_hears);
  void router_hears_end(Link& link);
  void frame_for_router(Link& link, uint64_t epoch, const proto::Frame& frame);
  void frame_for_worker(Link& link, uint64_t epoch, const proto::Frame& frame);
  void send_to_router(Link& link, const proto::Frame& frame);
  Link* find(RouterId router, const Worker& worker);
  TimePoint arrival(TimePoint& last);

  void set_peers(Worker& decode, RouterId router, const proto::Peers& peers);
  void dial_peers(Worker& decode);
  void dial_peer(const std::shared_ptr<Worker>& decode, Site& site);
  void pair_reply(const PairPtr& pair, const std::string& hello);
  void close_pair(const PairPtr& pair, Duration decode_hears, Duration prefill_hears);
  bool is_wanted(WorkerId decode, uint32_t site) const;

  Timeline& timeline_;
  Random random_;
  Duration delay_;
  std::vector<std::unique_ptr<Site>> sites_;
  std::vector<std::shared_ptr<Router>> routers_;
  std::vector<std::unique_ptr<Link>> links_;
  uint64_t next_epoch_ = 1;
  // By decode worker and router: the sites it is to pair with.
  std::map<WorkerId, std::map<RouterId, std::set<uint32_t>>> named_;
  std::vector<PairPtr> pairs_;
};

}  // namespace baton::sim
