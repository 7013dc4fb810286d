#include "router/service/cluster.h"

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <random>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <variant>

#include "common/base/log.h"
#include "common/formats/utf8.h"

namespace baton::router {
namespace {

constexpr Duration kTick = milliseconds(20);
// Of a frame with tokens of hundreds of streams, so many are written before the next are looked at:
// the first need not wait for all, and what a stream holds is still in the processor's cache.
constexpr size_t kTogether = 16;
constexpr Duration kLookEvery = seconds(1);  // for the addresses of a name

uint64_t random_u64() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random();
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

Cluster::Cluster(boost::asio::io_context& io, const WorkerSources& sources, DispatchLimits limits,
                 PlacementOptions placement, const std::optional<RoleOptions>& roles,
                 const net::RpcOptions& rpc)
    // Two routers draw from ranges that hardly meet, and no id is 0.
    : io_(io),
      router_(random_u64() | 1),
      rpc_(rpc),
      dispatcher_(RequestId((random_u64() << 32) | 1), limits, std::move(placement)),
      timer_(io) {
  if (roles) dispatcher_.keep_roles(router_, *roles);
  for (const std::string& text : sources.places) {
    const auto place = parse_worker_place(text);
    if (place && !place->watched) add_link(text);
  }
  num_fixed_ = links_.size();
  for (const std::string& text : sources.places) {
    const auto place = parse_worker_place(text);
    if (place && place->watched) watch(*place, sources.kubernetes);
  }
  tick();
}

Cluster::~Cluster() = default;

void Cluster::set_hello_check(std::function<status(const proto::WorkerHello&)> check) {
  check_hello_ = std::move(check);
}

WorkerLink::Handlers Cluster::link_handlers() {
  WorkerLink::Handlers handlers;
  handlers.on_hello = [this](const proto::WorkerHello& hello,
                             const std::string& address) -> status {
    BATON_CHECK_OK(check_alone(hello));
    if (check_hello_) BATON_CHECK_OK(check_hello_(hello));
    const status joined = dispatcher_.worker_joined(hello, address, Clock::now(), actions_);
    carry_out();
    if (joined) tell_of_sets(hello);
    return joined;
  };
  handlers.on_frame = [this](WorkerId from, proto::Frame&& frame) {
    dispatcher_.on_frame(from, std::move(frame), Clock::now(), actions_);
    carry_out();
  };
  handlers.on_lost = [this](WorkerId lost) {
    lost_one_ = true;
    dispatcher_.worker_lost(lost, Clock::now(), actions_);
    carry_out();
  };
  return handlers;
}

// Several addresses may lead to one worker, which is needed once.
status Cluster::check_alone(const proto::WorkerHello& hello) const {
  for (const auto& link : links_) {
    if (link->state() != WorkerLink::State::kConnected ||
        link->worker() != WorkerId(hello.worker())) {
      continue;
    }
    return error(Errc::kInvalidArgument,
                 "the worker there is connected as " + link->address() + " already");
  }
  return {};
}

// Right while a version is rolled out; else somebody's files or flags differ.
void Cluster::tell_of_sets(const proto::WorkerHello& hello) const {
  const size_t sets = dispatcher_.pool().num_sets(hello.model());
  if (sets <= 1) return;
  LOG_WARN("worker '{}' is of one of {} sets of workers of '{}': {}, {}", hello.name(), sets,
           hello.model(), formats::printable(hello.model_key()),
           formats::printable(hello.numerics()));
}

void Cluster::add_link(const std::string& address) {
  links_.push_back(std::make_unique<WorkerLink>(io_, address, rpc_, router_, link_handlers()));
}

// None of them is told of anything before this returns.
void Cluster::watch(const WorkerPlace& place, const std::optional<KubernetesApi>& kubernetes) {
  auto told = [this, name = found_.size()](const auto& addresses) { found(name, addresses); };
  if (!place.service) {
    watches_.push_back(std::make_unique<NameWatch>(io_, place.where, kLookEvery, std::move(told)));
  } else if (kubernetes) {
    services_.push_back(
        std::make_unique<SliceWatch>(io_, *place.service, *kubernetes, std::move(told)));
  } else {
    return;
  }
  found_.emplace_back();
}

void Cluster::found(size_t name, const std::vector<std::string>& addresses) {
  found_[name] = addresses;
  forget_links();
  std::unordered_set<std::string_view> dialled;
  for (const auto& link : links_) dialled.insert(link->address());
  for (const std::string& address : addresses) {
    if (dialled.insert(address).second) add_link(address);
  }
}

// What a name has no more, and nobody answers at, is forgotten. A worker that is connected stays
// until it goes: a name server may err.
void Cluster::forget_links() {
  std::unordered_set<std::string_view> named;
  for (const auto& of_one : found_) named.insert(of_one.begin(), of_one.end());
  const auto gone = std::remove_if(
      links_.begin() + static_cast<ptrdiff_t>(num_fixed_), links_.end(), [&](const auto& link) {
        return link->state() != WorkerLink::State::kConnected && !named.contains(link->address());
      });
  links_.erase(gone, links_.end());
}

void Cluster::tick() {
  timer_.expires_after(kTick);
  timer_.async_wait(
      [this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code cancelled) {
        if (cancelled || alive.expired()) return;
        // Not where it was lost, which is a call of its own.
        if (std::exchange(lost_one_, false)) forget_links();
        if (!dispatcher_.idle() || dispatcher_.roles() != nullptr) {
          dispatcher_.tick(Clock::now(), actions_);
          carry_out();
        }
        tick();
      });
}

result<RequestId> Cluster::submit(RequestInput input, std::shared_ptr<RequestListener> listener,
                                  uint32_t part) {
  const auto id = dispatcher_.submit(std::move(input), Clock::now(), actions_);
  if (id) listeners_[*id] = {std::move(listener), part};
  carry_out();
  return id;
}

std::optional<RequestTrail> Cluster::cancel(RequestId request) {
  listeners_.erase(request);
  auto trail = dispatcher_.cancel(request, Clock::now(), actions_);
  carry_out();
  return trail;
}

void Cluster::stop_choice(RequestId request, uint32_t choice) {
  dispatcher_.stop_choice(request, choice, Clock::now(), actions_);
  carry_out();
}

// Actions may make a listener cause more of them: those are appended, and carried out by the call
// that is under way.
void Cluster::carry_out() {
  if (carrying_out_) return;
  carrying_out_ = true;
  size_t sent = 0, told = 0;
  while (sent < actions_.sends.size() || told < actions_.outputs.size() || !touched_.empty()) {
    while (sent < actions_.sends.size()) {
      const Send send = std::move(actions_.sends[sent++]);
      const auto link = std::ranges::find(
          links_, send.to, [](const auto& l) { return l->worker().value_or(WorkerId{}); });
      if (link != links_.end()) (*link)->send(send.frame);
    }
    const bool more = told < actions_.outputs.size();
    if (more) {  // not from where it lies: what its listener causes comes behind it there
      Output output = std::move(actions_.outputs[told++]);
      tell(std::move(output));
    }
    if (!more || touched_.size() >= kTogether) end_batch();
  }
  actions_.clear();
  carrying_out_ = false;
}

void Cluster::end_batch() {
  for (size_t i = 0; i < touched_.size(); ++i) {
    touched_[i]->touched_ = false;
    touched_[i]->on_batch_end();
  }
  touched_.clear();
}

void Cluster::tell(Output&& output) {
  const RequestId id = std::visit([](const auto& o) { return o.request; }, output);
  const auto it = listeners_.find(id);
  if (it == listeners_.end()) return;  // cancelled in the meantime
  const auto [listener, part] = it->second;
  touch(listener);
  std::visit(Overloaded{
                 [&](TokenOut& o) { listener->on_token(part, o.choice, o.event); },
                 [&](PromptScored& o) { listener->on_prompt_scores(part, std::move(o.scores)); },
                 [&](ChoiceEnded& o) { listener->on_choice_ended(part, o.choice, o.end); },
                 [&](RequestEnded& o) {
                   listeners_.erase(id);
                   listener->on_ended(part, o);
                 },
             },
             output);
}

void Cluster::touch(const std::shared_ptr<RequestListener>& listener) {
  if (std::exchange(listener->touched_, true)) return;
  touched_.push_back(listener);
}

}  // namespace baton::router
