#include "sim/faults.h"

namespace baton::sim {

std::string_view name(Fault fault) {
  static constexpr std::array<std::string_view, kNumFaults> kNames = {
      "dropped",    "doubled",   "delayed",      "reads late",     "reads failed",
      "reads torn", "corrupted", "damaged",      "killed",         "restarted in place",
      "paused",     "cut",       "links broken", "routers killed", "clocks skewed"};
  return kNames[static_cast<size_t>(fault)];
}

FaultPlan FaultPlan::draw(Random random) {
  FaultPlan p;
  const auto sometimes = [&](double most) {
    return random.chance(0.5) ? most * static_cast<double>(random.between(1, 100)) / 100 : 0;
  };
  p.router_delay = random.chance(0.5) ? milliseconds(random.between(1, 60)) : microseconds(100);
  p.cancel = sometimes(0.3);
  p.stop_choice = sometimes(0.3);
  p.drift = sometimes(0.02);
  if (random.chance(0.05)) return p;  // good weather
  p.network.message_delay = milliseconds(random.between(0, random.chance(0.2) ? 400 : 10));
  p.network.get_delay = milliseconds(random.between(0, random.chance(0.2) ? 300 : 10));
  if (random.chance(0.5)) p.network.turn_bytes = random.between(100, 2000);
  p.network.duplicate_message = sometimes(0.2);
  p.network.mapped = random.chance(0.3);
  if (random.chance(0.15)) {  // slow, but nothing is lost
    if (random.chance(0.5)) p.router_delay = milliseconds(random.between(100, 220));
    if (random.chance(0.5)) p.network.drop_message = 0.0005 * random.between(1, 100);
    return p;
  }
  p.network.drop_message = sometimes(0.1);
  p.network.fail_get = sometimes(0.05);
  p.network.corrupt_get = sometimes(0.05);
  p.network.torn_get = sometimes(0.05);
  p.damage = sometimes(0.3);
  p.kill = sometimes(0.2);
  p.pause = sometimes(0.2);
  p.cut = sometimes(0.1);
  p.break_link = sometimes(0.2);
  p.kill_router = sometimes(0.05);
  p.reuse_address = random.chance(0.5);
  return p;
}

}  // namespace baton::sim
