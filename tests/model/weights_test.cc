#include "common/model/weights.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/fakes/fake_gpu.h"
#include "tests/model/goldens.h"

namespace baton::model {
namespace {

device::FakeGpu* gpu = nullptr;
int matrices = 0;

// The second matrix has no room, and the copy of the first is still under way.
result<ops::RowMatrix> make_one_matrix(device::Device& device, int64_t n, int64_t k, DType store) {
  if (++matrices > 1) return error(Errc::kResourceExhausted, "no room");
  gpu->hold();
  return ops::fake_gpu_ops().make_rows(device, n, k, store);
}

TEST(Weights, AnErrorLetsTheCopiesUnderWayEndFirst) {
  device::FakeGpu fake;
  gpu = &fake;
  matrices = 0;
  ops::Ops ops = ops::fake_gpu_ops();
  ops.make_rows = make_one_matrix;
  const auto files = formats::ModelFiles::open(data_dir() / "llama3").value();
  std::thread later([&] {
    fake.wait_until_held();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    fake.let_go();
  });
  // The fake dies of a copy into memory that was freed.
  const auto weights = load_weights(files, fake, ops, DType::kBF16, Shards(), {});
  later.join();
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().message, "no room");
  EXPECT_EQ(matrices, 2);
}

}  // namespace
}  // namespace baton::model
