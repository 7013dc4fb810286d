#include "sim/plan/derive.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/latency/rough_costs.h"

namespace baton::sim {

latency::StepCosts one_device(const ModelShape& model, const DeviceFigures& device) {
  latency::StepCosts costs =
      latency::rough_costs(model.weight_bytes, model.kv_bytes_per_token,
                           {device.bytes_per_second, device.flop_per_second});
  costs.fixed += device.step_overhead;
  return costs;
}

latency::StepCosts shared_by(const latency::StepCosts& one, const ModelShape& model,
                             const DeviceFigures& device, uint32_t degree) {
  if (degree == 1) return one;
  const double share = 1.0 / degree;
  const double reduces = 2.0 * model.layers;
  constexpr double kBytesPerElement = 2;
  const double row_bytes = kBytesPerElement * model.hidden * 2 * (degree - 1) * share;
  // A measured step may be shorter than the overhead that is told of the device.
  const double overhead = std::min(device.step_overhead, one.fixed / 2);
  latency::StepCosts costs = one;
  costs.fixed = (one.fixed - overhead) * share + overhead + reduces * device.all_reduce_latency;
  costs.row = one.row * share + reduces * row_bytes / device.all_reduce_bytes_per_second;
  costs.row_beyond *= share;
  costs.context_token *= share;
  costs.attended_pair *= share;
  costs.output *= share;
  return costs;
}

uint64_t kv_tokens(const ModelShape& model, const DeviceFigures& device, uint32_t degree) {
  const double bytes = degree * device.memory_bytes * device.usable - model.weight_bytes;
  return bytes <= 0 ? 0 : static_cast<uint64_t>(bytes / model.kv_bytes_per_token);
}

latency::Profile derived_profile(const ModelShape& model, const std::string& device_name,
                                 const DeviceFigures& device, const latency::Profile* measured,
                                 uint32_t degree) {
  latency::Profile p;
  p.name = fmt::format("{}-{}-tp{}", model.name, device_name, degree);
  p.source = fmt::format("derived for tensor parallelism of {} from {}; not measured", degree,
                         measured ? "the profile " + measured->name : "the roofs of the device");
  p.kv_bytes_per_token = model.kv_bytes_per_token;
  p.step = shared_by(measured ? measured->step : one_device(model, device), model, device, degree);
  p.link = {.latency = device.read_latency, .byte = 1 / (device.nic_bytes_per_second * degree)};
  return p;
}

}  // namespace baton::sim
