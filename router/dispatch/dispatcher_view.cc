// What is in flight, for whoever looks.
#include <algorithm>
#include <cstddef>

#include "router/dispatch/dispatcher.h"

namespace baton::router {

std::vector<RequestView> Dispatcher::oldest(size_t most) const {
  std::vector<const RequestState*> all;
  all.reserve(requests_.size());
  for (const auto& [id, request] : requests_) all.push_back(&request);
  const size_t shown = std::min(most, all.size());
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(shown);
  std::ranges::partial_sort(all, end, {}, [](const RequestState* r) { return r->arrival; });
  std::vector<RequestView> views;
  for (auto it = all.begin(); it != end; ++it) views.push_back(view_of(**it));
  return views;
}

RequestView Dispatcher::view_of(const RequestState& request) const {
  const RequestInput& input = request.input;
  const RequestTrail& trail = request.trail;
  RequestView view{.trace = input.trace,
                   .tenant = input.tenant,
                   .model = input.model,
                   .class_index = input.slo.class_index,
                   .received = input.slo.received,
                   .deadline = input.deadline,
                   .prompt_tokens = static_cast<uint32_t>(input.prompt.size()),
                   .max_tokens = input.max_tokens,
                   .choices = input.choices,
                   .cached_tokens = trail.cached_tokens,
                   .retries = trail.retries,
                   .resumes = trail.resumes,
                   .preemptions = trail.preemptions,
                   .num_legs = request.legs.size()};
  if (view.received == TimePoint{}) view.received = trail.submitted;
  for (const ChoiceStream& choice : request.choices)
    view.output_tokens += choice.delivered().size();
  const auto name_of = [&](WorkerId id) {
    const Worker* worker = pool_.find(id);
    return worker == nullptr ? std::string() : worker->hello.name();
  };
  for (const RequestId id : request.legs) {
    if (view.legs.size() == RequestView::kMaxLegs) break;
    const Leg& leg = legs_.at(id);
    const bool placed = is_placed(leg);
    view.legs.push_back({.id = leg.id,
                         .generation = leg.generation,
                         .stage = stage_of(leg),
                         .prefill = placed ? name_of(leg.placement.prefill) : "",
                         .decode = placed ? name_of(leg.placement.decode) : "",
                         .first_choice = leg.first_choice,
                         .choices = leg.num_choices});
  }
  return view;
}

}  // namespace baton::router
