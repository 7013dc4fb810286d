#include "router/dispatch/request_stages.h"

#include <algorithm>
#include <cstdint>

namespace baton::router {
namespace {

// Whatever a worker says, nothing overflows.
Duration told(uint64_t us) {
  constexpr uint64_t kMost = 86'400'000'000;
  return microseconds(std::min(us, kMost));
}

Duration at_least_zero(Duration d) { return std::max(d, Duration::zero()); }

void add_first_token(const RequestTrail& trail, TimePoint received, TimePoint written,
                     RequestStages& out) {
  out.prefill_queue = told(trail.prefill_queue_us);
  out.prefill = told(trail.prefill_compute_us);
  out.relay = at_least_zero(written - received - *out.parse - *out.admission - *out.reserve -
                            *out.prefill_queue - *out.prefill);
}

// One that was served anew, or went on elsewhere, has waited for more than one hand-over.
bool has_one_handover(const RequestTrail& trail) {
  return trail.kv_bytes > 0 && trail.second_token && trail.retries == 0 && trail.resumes == 0;
}

void add_second_token(const RequestTrail& trail, TimePoint first, TimePoint second,
                      RequestStages& out) {
  if (trail.decode_queue_us) out.decode_queue = told(*trail.decode_queue_us);
  if (trail.first_step_us) out.first_step = told(*trail.first_step_us);
  out.handover_relay = at_least_zero(second - *trail.second_token);
  // A second token without a text of its own counts from when it was here: maybe before the first
  // was in the socket.
  out.handover = at_least_zero(second - first);
  Duration rest = *out.handover;
  for (const auto& known :
       {out.parked, out.exposed_transfer, out.decode_queue, out.first_step, out.handover_relay}) {
    rest -= known.value_or(Duration::zero());
  }
  out.handover_rest = at_least_zero(rest);
}

}  // namespace

RequestStages stages_of(const RequestTrail& trail, TimePoint received,
                        const WrittenTokens& written) {
  RequestStages out;
  out.parse = at_least_zero(trail.submitted - received);
  if (trail.placed) out.admission = *trail.placed - trail.submitted;
  if (trail.granted) out.reserve = *trail.granted - *trail.placed;
  if (trail.first_token && trail.granted) {
    add_first_token(trail, received, written.first.value_or(*trail.first_token), out);
  }
  if (trail.kv_bytes > 0) {
    out.parked = told(trail.parked_us);
    out.exposed_transfer = told(trail.exposed_transfer_us);
  }
  if (has_one_handover(trail)) {
    add_second_token(trail, written.first.value_or(*trail.first_token),
                     written.second.value_or(*trail.second_token), out);
  }
  return out;
}

}  // namespace baton::router
