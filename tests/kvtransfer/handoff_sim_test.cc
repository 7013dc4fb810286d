#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "tests/kvtransfer/sim.h"

// Thousands of hand-offs through the real drivers, on a virtual clock, with everything going wrong
// that can. A failing seed runs again with SimConfig{.seed = ...}.
namespace baton::kvtransfer {
namespace {

class HandoffSim : public ::testing::Test {
 protected:
  HandoffSim() { spdlog::set_level(spdlog::level::off); }
  ~HandoffSim() override { spdlog::set_level(spdlog::level::info); }

  static SimResult run_seeds(SimConfig config, uint64_t first, uint64_t last) {
    SimResult sum;
    const bool always_gpus = config.gpus;
    for (uint64_t seed = first; seed <= last; ++seed) {
      config.seed = seed;
      config.mixed_blocks = !always_gpus && seed % 3 == 0;
      config.gpus = always_gpus || (!config.mixed_blocks && seed % 4 == 1);
      const SimResult r = run_sim(config);
      for (const std::string& v : r.violations) ADD_FAILURE() << v;
      if (!r.violations.empty()) break;
      sum.joined += r.joined;
      sum.given_up += r.given_up;
      sum.attempts += r.attempts;
      sum.retargets += r.retargets;
      sum.mismatches += r.mismatches;
      sum.rereads += r.rereads;
      sum.ignored += r.ignored;
      sum.events += r.events;
    }
    std::printf(
        "%u joined, %u given up, %u attempts, %u retargets, %lu mismatches, %lu rereads, "
        "%lu ignored messages, %lu events\n",
        sum.joined, sum.given_up, sum.attempts, sum.retargets, sum.mismatches, sum.rereads,
        sum.ignored, sum.events);
    return sum;
  }
};

TEST_F(HandoffSim, WithoutFaultsEveryRequestJoinsAtOnce) {
  const SimResult r = run_seeds({}, 1, 20);
  EXPECT_EQ(r.joined, 20u * 40);
  EXPECT_EQ(r.attempts, 20u * 40);
  EXPECT_EQ(r.mismatches, 0u);
}

TEST_F(HandoffSim, MessagesAndReadsThatOvertakeEachOther) {
  SimConfig c;
  c.faults.network.message_delay = milliseconds(300);
  c.faults.network.get_delay = milliseconds(200);
  c.faults.network.turn_bytes = 900;
  const SimResult r = run_seeds(c, 100, 130);
  EXPECT_EQ(r.joined, 31u * 40);
}

TEST_F(HandoffSim, LostAndDoubledMessages) {
  SimConfig c;
  c.faults.network.drop_message = 0.05;
  c.faults.network.duplicate_message = 0.1;
  c.faults.network.message_delay = milliseconds(100);
  const SimResult r = run_seeds(c, 200, 230);
  EXPECT_GT(r.joined, 31u * 39);  // what is lost is said again
}

TEST_F(HandoffSim, DamagedReadsAreReadAgain) {
  SimConfig c;
  c.faults.network.corrupt_get = 0.02;
  c.faults.network.fail_get = 0.02;
  const SimResult r = run_seeds(c, 300, 320);
  EXPECT_EQ(r.joined, 21u * 40);
  EXPECT_GT(r.mismatches, 50u);
  EXPECT_GT(r.rereads, 50u);
}

TEST_F(HandoffSim, DamagedSourcesAreNeverBelieved) {
  SimConfig c;
  c.faults.damage_source = 0.02;
  const SimResult r = run_seeds(c, 400, 420);
  EXPECT_GT(r.mismatches, 20u);
  EXPECT_GT(r.joined, 21u * 35);
}

TEST_F(HandoffSim, ReadsThatComeAfterTheLease) {
  SimConfig c;
  c.faults.network.get_delay = seconds(5);
  const SimResult r = run_seeds(c, 500, 510);
  EXPECT_GT(r.joined, 0u);
}

TEST_F(HandoffSim, WorkersDie) {
  SimConfig c;
  c.faults.worker_dies = 0.2;
  c.faults.network.get_delay = milliseconds(100);
  const SimResult r = run_seeds(c, 600, 630);
  EXPECT_GT(r.retargets, 5u);
  EXPECT_GT(r.joined, 31u * 36);
}

TEST_F(HandoffSim, WorkersPause) {
  SimConfig c;
  c.faults.worker_pauses = 0.3;
  c.faults.network.message_delay = milliseconds(50);
  const SimResult r = run_seeds(c, 700, 730);
  EXPECT_GT(r.joined, 31u * 30);
}

TEST_F(HandoffSim, CancelledAtAnyMoment) {
  SimConfig c;
  c.faults.cancel = 0.5;
  c.faults.network.message_delay = milliseconds(100);
  c.faults.network.get_delay = milliseconds(300);
  c.faults.network.turn_bytes = 2000;
  const SimResult r = run_seeds(c, 800, 830);
  EXPECT_GT(r.given_up, 150u);
  EXPECT_GT(r.mismatches, 10u);  // of blocks that their source had given to others
}

TEST_F(HandoffSim, FullDecodeWorkers) {
  SimConfig c;
  c.faults.refuse = 0.5;
  const SimResult r = run_seeds(c, 900, 920);
  EXPECT_GT(r.joined, 21u * 36);
}

// What is read is copied by its reader, in turns, while all but the reads goes wrong.
TEST_F(HandoffSim, EverythingAtOnceWithMappedMemory) {
  SimConfig c;
  c.faults = {.network = {.drop_message = 0.02,
                          .duplicate_message = 0.05,
                          .message_delay = milliseconds(80),
                          .mapped = true},
              .damage_source = 0.003,
              .cancel = 0.15,
              .worker_dies = 0.1,
              .worker_pauses = 0.1,
              .refuse = 0.2};
  const SimResult r = run_seeds(c, 1200, 1300);
  EXPECT_GT(r.joined, 101u * 25);
  EXPECT_GT(r.mismatches, 0u);
}

SimFaults everything() {
  return {.network = {.drop_message = 0.02,
                      .duplicate_message = 0.05,
                      .fail_get = 0.01,
                      .corrupt_get = 0.01,
                      .message_delay = milliseconds(80),
                      .get_delay = milliseconds(150),
                      .turn_bytes = 1500},
          .damage_source = 0.003,
          .cancel = 0.15,
          .worker_dies = 0.1,
          .worker_pauses = 0.1,
          .refuse = 0.2};
}

TEST_F(HandoffSim, EverythingAtOnce) {
  SimConfig c;
  c.faults = everything();
  const SimResult r = run_seeds(c, 1000, 1100);
  EXPECT_GT(r.joined, 101u * 25);
}

TEST_F(HandoffSim, EverythingAtOnceInGpus) {
  SimConfig c;
  c.gpus = true;
  c.faults = everything();
  const SimResult r = run_seeds(c, 1400, 1450);
  EXPECT_GT(r.joined, 51u * 25);
  EXPECT_GT(r.mismatches, 51u);
}

}  // namespace
}  // namespace baton::kvtransfer
