#include "sim/network.h"

#include <algorithm>
#include <utility>

#include "sim/router.h"

namespace baton::sim {
namespace {

constexpr Duration kRedial = milliseconds(50);

std::string address_of(const Site& site) { return "site:" + std::to_string(site.index + 1); }

}  // namespace

TimePoint Network::arrival(TimePoint& last) {
  last = std::max(last, timeline_.now() + random_.up_to(delay_));
  return last;
}

// --- routers' connections ------------------------------------------------------------------------

void Network::add_router(const std::shared_ptr<Router>& router) {
  routers_.push_back(router);
  for (const auto& site : sites_) {
    auto& link = links_.emplace_back(std::make_unique<Link>());
    link->router = router;
    link->site = site.get();
    dial(*link);
  }
}

void Network::remove_router(Router& router) {
  for (const auto& link : links_) {
    if (link->router.lock().get() != &router) continue;
    break_link(*link, Duration::max(), random_.up_to(milliseconds(500)));
  }
  std::erase_if(routers_, [&](const auto& r) { return r.get() == &router; });
}

Site& Network::add_site() {
  auto& site = sites_.emplace_back(std::make_unique<Site>());
  site->index = static_cast<uint32_t>(sites_.size() - 1);
  for (const auto& router : routers_) {
    auto& link = links_.emplace_back(std::make_unique<Link>());
    link->router = router;
    link->site = site.get();
    dial(*link);
  }
  return *site;
}

// Until somebody is there.
void Network::dial(Link& link) {
  const auto router = link.router.lock();
  if (!router) return;
  router->later(random_.up_to(kRedial) + milliseconds(1), [this, &link] {
    if (link.router_end != 0) return;
    if (link.site->worker == nullptr) return dial(link);
    const uint64_t epoch = link.epoch = link.router_end = next_epoch_++;
    link.worker = {};
    link.site->worker->run([this, &link, epoch, worker = link.site->worker.get()] {
      if (link.epoch == epoch && link.site->worker.get() == worker) accept(link, epoch);
    });
  });
}

void Network::accept(Link& link, uint64_t epoch) {
  const auto router = link.router.lock();
  if (!router) return;
  Worker& worker = *link.site->worker;
  // A newer connection of a router takes the older one's place.
  if (link.worker_end != 0) worker.core().router_lost(router->id(), worker.local_now());
  link.worker_end = epoch;
  proto::Frame hello, load;
  *hello.mutable_worker_hello() = worker.hello(address_of(*link.site));
  send_to_router(link, hello);
  *load.mutable_load() = worker.load();
  send_to_router(link, load);
}

void Network::break_link(Link& link, Duration router_hears, Duration worker_hears) {
  link.epoch = 0;
  const auto router = link.router.lock();
  if (router && router_hears != Duration::max() && link.router_end != 0) {
    router->later(router_hears, [this, &link, end = link.router_end] {
      if (link.router_end == end) router_hears_end(link);
    });
  }
  const auto worker = link.site->worker;
  if (worker == nullptr || link.worker_end == 0 || worker_hears == Duration::max()) return;
  const RouterId id = router ? router->id() : RouterId{};
  worker->later(worker_hears, [&link, end = link.worker_end, id, w = worker.get()] {
    if (link.worker_end != end) return;
    link.worker_end = 0;
    w->core().router_lost(id, w->local_now());
  });
}

void Network::router_hears_end(Link& link) {
  link.router_end = 0;
  link.epoch = 0;
  const WorkerId worker = std::exchange(link.worker, {});
  if (worker != WorkerId{}) link.router.lock()->worker_lost(worker);
  dial(link);
}

Network::Link* Network::find(RouterId router, const Worker& worker) {
  for (const auto& link : links_) {
    const auto owner = link->router.lock();
    if (owner && owner->id() == router && link->site->worker.get() == &worker) return link.get();
  }
  return nullptr;
}

void Network::to_worker(const RouterProcess& from, WorkerId to, proto::Frame&& frame) {
  for (const auto& link : links_) {
    if (link->router.lock().get() != &from || link->worker != to) continue;
    if (link->epoch == 0 || link->epoch != link->router_end) return;  // into the void
    timeline_.at(arrival(link->last_to_worker),
                 [this, &l = *link, epoch = link->epoch, frame = std::move(frame)] {
                   if (l.epoch == epoch) frame_for_worker(l, epoch, frame);
                 });
    return;
  }
}

void Network::frame_for_worker(Link& link, uint64_t epoch, const proto::Frame& frame) {
  const auto worker = link.site->worker;
  if (worker == nullptr) return;
  worker->run([this, &link, epoch, frame, w = worker.get()] {
    if (link.worker_end != epoch) return;
    const auto router = link.router.lock();
    if (!router) return;
    if (frame.has_peers()) return set_peers(*w, router->id(), frame.peers());
    w->core().on_frame(router->id(), frame, w->local_now());
  });
}

void Network::to_router(Worker& from, RouterId to, const proto::Frame& frame) {
  Link* link = find(to, from);
  if (link != nullptr) send_to_router(*link, frame);
}

void Network::to_all_routers(Worker& from, const proto::Frame& frame) {
  for (const auto& link : links_) {
    if (link->site->worker.get() == &from) send_to_router(*link, frame);
  }
}

std::vector<RouterId> Network::routers_of(const Worker& worker) const {
  std::vector<RouterId> ids;
  for (const auto& link : links_) {
    const auto router = link->router.lock();
    if (link->site->worker.get() == &worker && link->worker_end != 0 && router) {
      ids.push_back(router->id());
    }
  }
  std::ranges::sort(ids);
  return ids;
}

void Network::send_to_router(Link& link, const proto::Frame& frame) {
  if (link.epoch == 0 || link.epoch != link.worker_end) return;
  timeline_.at(arrival(link.last_to_router), [this, &link, epoch = link.epoch, frame] {
    if (link.epoch == epoch) frame_for_router(link, epoch, frame);
  });
}

void Network::frame_for_router(Link& link, uint64_t epoch, const proto::Frame& frame) {
  const auto router = link.router.lock();
  if (!router) return;
  router->run([this, &link, epoch, frame, r = router.get()] {
    if (link.router_end != epoch) return;
    if (!frame.has_worker_hello()) return r->on_frame(link.worker, proto::Frame(frame));
    const WorkerId worker(frame.worker_hello().worker());
    link.worker = worker;
    if (r->worker_joined(frame.worker_hello(), address_of(*link.site))) return;
    link.worker = {};
    break_link(link, Duration::zero(), milliseconds(1));
  });
}

void Network::break_some_link(Duration silence) {
  if (links_.empty()) return;
  Link& link = *links_[random_.pick(links_.size())];
  break_link(link, random_.up_to(silence), random_.up_to(silence));
}

void Network::process_sleeps(Process& process, Duration silence) {
  for (const auto& link : links_) {
    const auto router = link->router.lock();
    if (link->site->worker.get() == &process) break_link(*link, silence, Duration::zero());
    if (router.get() == &process) break_link(*link, Duration::zero(), silence);
  }
  for (const PairPtr& pair : std::vector(pairs_)) {
    const auto decode = pair->decode.lock(), prefill = pair->prefill.lock();
    if (decode.get() == &process) close_pair(pair, Duration::zero(), silence);
    if (prefill.get() == &process) close_pair(pair, silence, Duration::zero());
  }
}

// --- workers -------------------------------------------------------------------------------------

void Network::worker_died(Site& site) {
  const auto worker = std::exchange(site.worker, nullptr);
  for (const auto& link : links_) {
    if (link->site != &site) continue;
    link->worker_end = 0;
    break_link(*link, random_.up_to(milliseconds(600)), Duration::max());
  }
  for (const PairPtr& pair : std::vector(pairs_)) {
    if (pair->decode.lock() == worker || pair->prefill.lock() == worker) {
      close_pair(pair, random_.up_to(milliseconds(600)), random_.up_to(milliseconds(600)));
    }
  }
  named_.erase(worker->id());
}

// --- pairing -------------------------------------------------------------------------------------

void Network::set_peers(Worker& decode, RouterId router, const proto::Peers& peers) {
  std::set<uint32_t>& sites = named_[decode.id()][router];
  sites.clear();
  for (const auto& peer : peers.prefill()) {
    for (const auto& site : sites_) {
      if (address_of(*site) == peer.address()) sites.insert(site->index);
    }
  }
  for (const PairPtr& pair : std::vector(pairs_)) {
    if (pair->decode.lock().get() == &decode && !is_wanted(decode.id(), pair->site->index)) {
      close_pair(pair, Duration::zero(), random_.up_to(delay_));
    }
  }
  dial_peers(decode);
}

bool Network::is_wanted(WorkerId decode, uint32_t site) const {
  const auto found = named_.find(decode);
  if (found == named_.end()) return false;
  return std::ranges::any_of(found->second, [&](const auto& r) { return r.second.contains(site); });
}

void Network::dial_peers(Worker& decode) {
  const auto self = std::static_pointer_cast<Worker>(decode.shared_from_this());
  for (const auto& site : sites_) {
    if (!is_wanted(decode.id(), site->index)) continue;
    const bool open = std::ranges::any_of(pairs_, [&](const PairPtr& pair) {
      return !pair->closed && pair->site == site.get() && pair->decode.lock() == self;
    });
    if (!open) dial_peer(self, *site);
  }
}

// The decode worker sends its hello, and is sent the other's, if they fit.
void Network::dial_peer(const std::shared_ptr<Worker>& decode, Site& site) {
  auto pair = pairs_.emplace_back(std::make_shared<Pair>());
  pair->decode = decode;
  pair->site = &site;
  timeline_.after(random_.up_to(delay_), [this, pair, hello = decode->core().hello()] {
    const auto prefill = pair->site->worker;
    if (pair->closed) return;
    if (prefill == nullptr) return close_pair(pair, milliseconds(1), Duration::max());
    pair->prefill = prefill;
    prefill->run([this, pair, hello, p = prefill.get()] {
      if (pair->closed) return;
      const auto known = p->core().add_peer(hello, p->local_now());
      if (!known) return close_pair(pair, milliseconds(1), Duration::max());
      pair->known_to_prefill = true;
      timeline_.after(random_.up_to(delay_),
                      [this, pair, theirs = p->core().hello()] { pair_reply(pair, theirs); });
    });
  });
}

void Network::pair_reply(const PairPtr& pair, const std::string& hello) {
  const auto decode = pair->decode.lock();
  if (!decode) return;
  decode->run([this, pair, hello, d = decode.get()] {
    if (pair->closed) return;
    if (d->core().add_peer(hello, d->local_now())) {
      pair->known_to_decode = true;
    } else {
      close_pair(pair, milliseconds(1), random_.up_to(delay_));
    }
  });
}

// Each end hears of it later, and the decode worker dials again. Where a worker is known over a
// newer connection, the end of the older one ends nothing.
void Network::close_pair(const PairPtr& pair, Duration decode_hears, Duration prefill_hears) {
  if (std::exchange(pair->closed, true)) return;
  std::erase(pairs_, pair);
  const auto decode = pair->decode.lock(), prefill = pair->prefill.lock();
  const auto known_anew = [this](const std::shared_ptr<Worker>& d, const std::shared_ptr<Worker>& p,
                                 bool Pair::*known) {
    return std::ranges::any_of(pairs_, [&](const PairPtr& other) {
      return other->decode.lock() == d && other->prefill.lock() == p && (*other).*known;
    });
  };
  if (decode) {
    decode->later(decode_hears, [this, pair, known_anew, d = decode.get(),
                                 prefill_id = prefill ? prefill->id() : WorkerId{}] {
      const auto self = pair->decode.lock();
      if (pair->known_to_decode &&
          !known_anew(self, pair->prefill.lock(), &Pair::known_to_decode)) {
        d->core().remove_peer(prefill_id, d->local_now());
      }
      d->later(random_.up_to(kRedial), [this, d] { dial_peers(*d); });
    });
  }
  if (prefill && pair->known_to_prefill && prefill_hears != Duration::max()) {
    prefill->later(prefill_hears, [pair, known_anew, p = prefill.get(),
                                   decode_id = decode ? decode->id() : WorkerId{}] {
      if (known_anew(pair->decode.lock(), pair->prefill.lock(), &Pair::known_to_prefill)) return;
      p->core().remove_peer(decode_id, p->local_now());
    });
  }
}

void Network::gave_up(Worker& by, WorkerId peer) {
  for (const PairPtr& pair : std::vector(pairs_)) {
    const auto decode = pair->decode.lock(), prefill = pair->prefill.lock();
    if (!decode || !prefill) continue;
    if (decode.get() == &by && prefill->id() == peer) {
      pair->known_to_decode = false;
      close_pair(pair, Duration::zero(), random_.up_to(delay_));
    } else if (prefill.get() == &by && decode->id() == peer) {
      pair->known_to_prefill = false;
      close_pair(pair, random_.up_to(delay_), Duration::max());
    }
  }
}

void Network::break_pairs(Worker& one, Worker& other, Duration silence) {
  for (const PairPtr& pair : std::vector(pairs_)) {
    const auto decode = pair->decode.lock(), prefill = pair->prefill.lock();
    const bool between = (decode.get() == &one && prefill.get() == &other) ||
                         (decode.get() == &other && prefill.get() == &one);
    if (between) close_pair(pair, random_.up_to(silence), random_.up_to(silence));
  }
}

}  // namespace baton::sim
