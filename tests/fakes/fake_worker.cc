#include "tests/fakes/fake_worker.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <random>
#include <stdexcept>
#include <utility>

#include "common/net/protocol.h"

namespace baton::fakes {
namespace {

uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

uint64_t random_id() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random() | 1;
}

template <class Message>
void address_to(Message& message, const proto::RequestSpec& spec) {
  message.set_request(spec.request());
  message.set_generation(spec.generation());
}

}  // namespace

TokenId fake_token(const proto::RequestSpec& spec, uint32_t choice, uint32_t index) {
  uint64_t h = mix(spec.sampling().temperature() == 0 ? 1 : spec.sampling().seed());
  for (uint32_t i = 0; i < spec.prompt_tokens(); ++i)
    h = mix(h ^ static_cast<uint64_t>(spec.tokens(static_cast<int>(i))));
  h = mix(h ^ (uint64_t{choice} << 32) ^ index);
  return static_cast<TokenId>('a' + h % 26);
}

FakeWorker::FakeWorker(boost::asio::io_context& io, FakeWorkerOptions options)
    : io_(io), options_(std::move(options)), id_(random_id()), timer_(io) {
  if (!options_.draw) options_.draw = fake_token;
  auto server = net::listen_rpc(
      io, "127.0.0.1:" + std::to_string(options_.port), {},
      [this](std::shared_ptr<net::RpcConnection> connection) { accept(std::move(connection)); });
  if (!server) throw std::runtime_error(server.error().message);
  server_ = std::move(*server);
  options_.port = server_->port();
  if (options_.network) (*options_.network)[id_] = this;
}

FakeWorker::~FakeWorker() {
  die();
  if (options_.network) options_.network->erase(id_);
}

std::string FakeWorker::address() const { return "127.0.0.1:" + std::to_string(options_.port); }

void FakeWorker::die() {
  server_.reset();
  for (const auto& router : std::exchange(routers_, {})) {
    router->set_handlers({[](proto::Frame&&) {}, [](const Error&) {}});
    router->close();
  }
  reserved_.clear();
  sequences_.clear();
}

void FakeWorker::accept(std::shared_ptr<net::RpcConnection> connection) {
  const std::weak_ptr<net::RpcConnection> weak = connection;
  net::RpcConnection* raw = connection.get();
  connection->set_handlers(
      {[this, weak, alive = std::weak_ptr<void>(alive_)](proto::Frame&& frame) {
         const auto from = weak.lock();
         if (from && !alive.expired()) on_frame(from, std::move(frame));
       },
       [this, raw, alive = std::weak_ptr<void>(alive_)](const Error&) {
         if (!alive.expired()) drop_router(raw);
       }});
  routers_.push_back(std::move(connection));
}

void FakeWorker::drop_router(const net::RpcConnection* router) {
  std::erase_if(routers_, [&](const auto& r) { return r.get() == router; });
  std::erase_if(sequences_, [&](const Sequence& s) { return s.router.lock().get() == router; });
  std::erase_if(reserved_, [&](const auto& r) { return r.second.second.lock().get() == router; });
}

void FakeWorker::on_frame(const std::shared_ptr<net::RpcConnection>& from, proto::Frame&& frame) {
  switch (frame.body_case()) {
    case proto::Frame::kRouterHello:
      greet(from);
      break;
    case proto::Frame::kPeers:
      peers_.clear();
      for (const auto& peer : frame.peers().prefill()) peers_.push_back(peer.worker());
      send_load();
      break;
    case proto::Frame::kReserve:
      on_reserve(from, frame.reserve());
      break;
    case proto::Frame::kSubmit:
      on_submit(from, frame.submit());
      break;
    case proto::Frame::kCancel:
      on_cancel(frame.cancel());
      break;
    default:
      break;
  }
}

void FakeWorker::greet(const std::shared_ptr<net::RpcConnection>& to) {
  proto::Frame frame;
  proto::WorkerHello& hello = *frame.mutable_worker_hello();
  hello.set_protocol_min(net::kProtocolMin);
  hello.set_protocol_max(net::kProtocolMax);
  hello.set_worker(id_.value);
  hello.set_name(options_.name);
  hello.set_role(options_.role);
  hello.set_model(options_.model);
  hello.set_model_key("test-key");
  hello.set_numerics(options_.numerics);
  hello.set_block_tokens(16);
  hello.set_total_blocks(1 << 20);
  hello.set_max_context(options_.max_context);
  hello.set_max_sequences(options_.max_sequences);
  hello.set_vocab_size(options_.vocab_size);
  (void)to->send(frame);
  send_load();
}

void FakeWorker::send_load() {
  proto::Frame frame;
  proto::Load& load = *frame.mutable_load();
  load.set_running(static_cast<uint32_t>(sequences_.size()));
  load.set_total_blocks(1 << 20);
  load.set_free_blocks((1 << 20) - options_.used_blocks - static_cast<uint32_t>(active()));
  load.set_role(options_.role);
  load.mutable_paired()->Add(peers_.begin(), peers_.end());
  for (const auto& router : routers_) (void)router->send(frame);
}

void FakeWorker::on_reserve(const std::shared_ptr<net::RpcConnection>& from,
                            const proto::Reserve& reserve) {
  ++reserves_;
  proto::Frame frame;
  proto::ReserveReply& reply = *frame.mutable_reserve_reply();
  address_to(reply, reserve.spec());
  reply.set_granted(options_.refuse_reserves == 0);
  if (options_.refuse_reserves > 0) {
    --options_.refuse_reserves;
    reply.set_retry_after_us(10'000);
  } else {
    reserved_[{reserve.spec().request(), reserve.spec().generation()}] = {reserve.spec(), from};
  }
  (void)from->send(frame);
}

void FakeWorker::on_submit(const std::shared_ptr<net::RpcConnection>& from,
                           const proto::Submit& submit) {
  ++submits_;
  const proto::RequestSpec& spec = submit.spec();
  specs_.push_back(spec);
  proto::Frame frame;
  if (options_.fail_submits > 0) {
    --options_.fail_submits;
    proto::Failed& failed = *frame.mutable_failed();
    address_to(failed, spec);
    failed.set_code(static_cast<uint32_t>(Errc::kInternal));
    failed.set_message("the fake failed on purpose");
    failed.set_retryable(true);
    (void)from->send(frame);
    return;
  }
  proto::PrefillDone& done = *frame.mutable_prefill_done();
  address_to(done, spec);
  done.set_compute_us(100);
  for (uint32_t i = 1; submit.prompt_logprobs() >= 0 && i < spec.prompt_tokens(); ++i) {
    proto::PromptScore& score = *done.add_prompt_scores();
    score.set_logprob(-0.25f * static_cast<float>(i));
  }
  std::vector<Sequence> sequences;
  for (uint32_t c = 0; c < spec.choices(); ++c) {
    const auto resumed = static_cast<uint32_t>(spec.tokens_size()) - spec.prompt_tokens();
    sequences.push_back({spec, spec.first_choice() + c, resumed, resumed, from});
  }
  (void)from->send(frame);
  if (submit.sink() == 0) {
    for (Sequence& sequence : sequences) sequences_.push_back(std::move(sequence));
    schedule();
  } else {
    hand_over(submit, sequences);
  }
}

// The first token of each choice comes from here, the others from the decode worker.
void FakeWorker::hand_over(const proto::Submit& submit, const std::vector<Sequence>& sequences) {
  proto::Frame frame;
  std::vector<proto::Frame> after;
  std::vector<uint32_t> going_on;
  std::shared_ptr<net::RpcConnection> router;
  for (Sequence sequence : sequences) {
    router = sequence.router.lock();
    if (draw(sequence, *frame.mutable_tokens(), after)) going_on.push_back(sequence.choice);
  }
  if (!router) return;
  (void)router->send(frame);
  for (const proto::Frame& f : after) (void)router->send(f);
  const auto sink = options_.network->find(WorkerId(submit.sink()));
  if (!going_on.empty() && sink != options_.network->end()) {
    sink->second->joined(submit.spec(), going_on);
  }
}

void FakeWorker::joined(const proto::RequestSpec& spec, const std::vector<uint32_t>& choices) {
  const auto it = reserved_.find({spec.request(), spec.generation()});
  if (it == reserved_.end()) return;
  const auto router = it->second.second;
  reserved_.erase(it);
  const auto resumed = static_cast<uint32_t>(spec.tokens_size()) - spec.prompt_tokens();
  for (const uint32_t c : choices) sequences_.push_back({spec, c, resumed + 1, resumed, router});
  proto::Frame frame;
  proto::HandedOff& done = *frame.mutable_handed_off();
  address_to(done, spec);
  done.set_bytes(1000u * static_cast<uint32_t>(spec.tokens_size()));
  done.set_transport("fake");
  if (const auto to = router.lock()) (void)to->send(frame);
  schedule();
}

void FakeWorker::on_cancel(const proto::Cancel& cancel) {
  ++cancels_;
  std::erase_if(sequences_, [&](const Sequence& s) {
    return s.spec.request() == cancel.request() && s.spec.generation() == cancel.generation() &&
           (!cancel.one_choice() || s.choice == cancel.choice());
  });
  if (!cancel.one_choice()) reserved_.erase({cancel.request(), cancel.generation()});
}

// One token of `sequence` into `tokens`. False if that was its last here.
bool FakeWorker::draw(Sequence& sequence, proto::Tokens& tokens, std::vector<proto::Frame>& after) {
  const proto::RequestSpec& spec = sequence.spec;
  const TokenId token = options_.draw(spec, sequence.choice, sequence.next);
  proto::TokenEvent& event = *tokens.add_tokens();
  address_to(event, spec);
  event.set_choice(sequence.choice);
  event.set_index(sequence.next++);
  event.set_token(token);
  ++tokens_sent_;
  if (spec.sampling().want_logprobs()) {
    event.set_logprob(-0.5f);
    for (uint32_t k = 0; k < spec.sampling().logprobs(); ++k) {
      proto::TopLogprob& top = *event.add_top();
      top.set_token(k == 0 ? token : static_cast<TokenId>('A' + k));
      top.set_logprob(-0.5f * static_cast<float>(k + 1));
    }
  }
  const auto& stops = spec.sampling().stop_tokens();
  constexpr TokenId kEos = 319;
  const bool stopped = std::find(stops.begin(), stops.end(), token) != stops.end() ||
                       (token == kEos && !spec.sampling().ignore_eos());
  if (stopped || sequence.next >= spec.max_tokens()) {
    proto::Finished& finished = *after.emplace_back().mutable_finished();
    address_to(finished, spec);
    finished.set_choice(sequence.choice);
    finished.set_reason(stopped ? proto::FINISH_STOP : proto::FINISH_LENGTH);
    finished.set_stop_token(stopped ? token : -1);
    finished.set_output_tokens(sequence.next);
    return false;
  }
  if (options_.preempt_after > 0 && sequence.next - sequence.first >= options_.preempt_after) {
    proto::Preempted& preempted = *after.emplace_back().mutable_preempted();
    address_to(preempted, spec);
    preempted.set_choice(sequence.choice);
    preempted.set_output_tokens(sequence.next);
    return false;
  }
  return true;
}

void FakeWorker::schedule() {
  if (stepping_ || sequences_.empty()) return;
  stepping_ = true;
  const auto run = [this, alive = std::weak_ptr<void>(alive_)] {
    if (alive.expired()) return;
    stepping_ = false;
    if (!options_.ready || options_.ready()) step();
    schedule();
  };
  if (options_.step == Duration::zero()) {
    boost::asio::post(io_, run);
    return;
  }
  timer_.expires_after(options_.step + std::exchange(options_.phase, Duration::zero()));
  timer_.async_wait([run](boost::system::error_code failed) {
    if (!failed) run();
  });
}

void FakeWorker::step() {
  std::map<std::shared_ptr<net::RpcConnection>, proto::Frame> tokens;
  std::vector<std::pair<std::shared_ptr<net::RpcConnection>, proto::Frame>> after;
  std::erase_if(sequences_, [&](Sequence& sequence) {
    const auto router = sequence.router.lock();
    if (!router) return true;
    std::vector<proto::Frame> said;
    const bool goes_on = draw(sequence, *tokens[router].mutable_tokens(), said);
    for (proto::Frame& frame : said) after.emplace_back(router, std::move(frame));
    return !goes_on;
  });
  for (const auto& [router, frame] : tokens) (void)router->send(frame);
  if (options_.on_stepped) options_.on_stepped();
  for (const auto& [router, frame] : after) (void)router->send(frame);
  if (!after.empty()) send_load();
  if (options_.die_after_tokens > 0 && tokens_sent_ >= options_.die_after_tokens) die();
}

}  // namespace baton::fakes
