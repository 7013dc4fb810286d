#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"
#include "worker/worker.h"

// What a worker does not start with.
namespace baton::worker {
namespace {

void nobody_fails() { FAIL() << "a worker cannot go on"; }

class NodeRefusals : public ::testing::Test {
 protected:
  NodeRefusals() {
    const auto model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
    fakes::write_hf_model(dir_ / "tiny", model);
  }
  const fakes::TempDir dir_;
  boost::asio::io_context io_;
};

TEST_F(NodeRefusals, RefusesAnOpenAddressWithoutTrust) {
  WorkerConfig config;
  config.model = (dir_ / "tiny").string();
  config.listen = "0.0.0.0:0";
  const auto worker = Worker::start(io_, config, nobody_fails);
  ASSERT_FALSE(worker);
  EXPECT_NE(worker.error().message.find("trusted_network"), std::string::npos);
  config.trusted_network = true;
  const auto open = Worker::start(io_, config, nobody_fails);
  ASSERT_FALSE(open);
  EXPECT_NE(open.error().message.find("secret_file"), std::string::npos);
}

TEST_F(NodeRefusals, RefusesATypeThatTheDeviceDoesNotHave) {
  const struct {
    const char *device, *dtype, *message;
  } cases[] = {{"cpu", "f16", "dtype 'f16' is offered on cuda alone; use bf16 or f32 on the CPU"},
               {"cpu", "f8", "dtype 'f8' is none of bf16, f16, f32"},
               {"cuda", "f32", "dtype 'f32' is not offered on cuda; use bf16 or f16"},
               {"cuda", "f8", "dtype 'f8' is none of bf16, f16, f32"}};
  for (const auto& c : cases) {
    WorkerConfig config;
    config.model = (dir_ / "tiny").string();
    config.device = c.device;
    config.dtype = c.dtype;
    const auto worker = Worker::start(io_, config, nobody_fails);
    ASSERT_FALSE(worker) << c.device << " " << c.dtype;
    EXPECT_EQ(worker.error().message, c.message);
  }
}

TEST_F(NodeRefusals, RefusesToReadKvWhereItCannotBe) {
  const struct {
    const char *device, *kv_from, *message;
    uint32_t ranks;
  } cases[] = {{"cpu", "disk", "kv_from 'disk' is none of host, device", 1},
               {"cpu", "device", "kv_from 'device' is offered on device cuda alone, not on cpu", 1},
               {"emulated", "device",
                "kv_from 'device' is offered on device cuda alone, not on emulated", 1},
               {"cuda", "device", "kv_from 'device' is not offered with tensor_parallel yet", 2}};
  for (const auto& c : cases) {
    WorkerConfig config;
    config.model = (dir_ / "tiny").string();
    config.device = c.device;
    config.kv_from = c.kv_from;
    config.tensor_parallel = c.ranks;
    const auto worker = Worker::start(io_, config, nobody_fails);
    ASSERT_FALSE(worker) << c.device << " " << c.kv_from;
    EXPECT_EQ(worker.error().message, c.message);
  }
}

}  // namespace
}  // namespace baton::worker
