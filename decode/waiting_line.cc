#include "decode/waiting_line.h"

#include <iterator>
#include <utility>
#include <vector>

namespace baton::decode {

void WaitingLine::add(DecodeRequest request, uint64_t serial) {
  const engine::Request& r = request.request;
  const Rank rank{r.priority, r.arrival, serial};
  tokens_ += r.num_tokens();
  choices_ += r.sampling.num_choices;
  ranks_.emplace(r.key, rank);
  line_.emplace(rank, std::move(request));
}

bool WaitingLine::goes_behind(const engine::Request& request) const {
  if (line_.empty()) return false;
  const auto& [priority, arrival, serial] = line_.begin()->first;
  return std::tie(priority, arrival) <= std::tie(request.priority, request.arrival);
}

DecodeRequest WaitingLine::take_first() {
  DecodeRequest request = std::move(line_.begin()->second);
  line_.erase(line_.begin());
  forget(request);
  return request;
}

bool WaitingLine::remove(const RequestKey& key) {
  const auto rank = ranks_.find(key);
  if (rank == ranks_.end()) return false;
  const auto found = line_.find(rank->second);
  const DecodeRequest request = std::move(found->second);
  line_.erase(found);
  forget(request);
  return true;
}

void WaitingLine::expire(TimePoint now, Events& events) {
  std::vector<RequestKey> late;
  for (const auto& [rank, request] : line_) {
    if (request.request.deadline <= now) late.push_back(request.request.key);
  }
  for (const RequestKey& key : late) {
    remove(key);
    events.push_back(Expired{key, /*reserved=*/false});
  }
}

void WaitingLine::forget(const DecodeRequest& request) {
  ranks_.erase(request.request.key);
  tokens_ -= request.request.num_tokens();
  choices_ -= request.request.sampling.num_choices;
}

}  // namespace baton::decode
