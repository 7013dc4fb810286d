#include "common/model/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "common/formats/storage_type.h"
#include "tests/fakes/fake_gpu.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"
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

// What the device has of each matrix that was made, by the order they were made in.
std::vector<std::byte*> made_rows;
result<ops::RowMatrix> note_rows(device::Device& device, int64_t n, int64_t k, DType store) {
  auto made = ops::fake_gpu_ops().make_rows(device, n, k, store);
  made_rows.push_back(made.value().rows);
  return made;
}

std::vector<uint16_t> halves_at(device::Device& device, const std::byte* from, size_t count) {
  std::vector<uint16_t> halves(count);
  const auto stream = device.make_stream();
  device.copy(*stream, halves.data(), from, count * sizeof(uint16_t));
  stream->synchronize();
  return halves;
}

// The file's own halves, bit for bit, or its values rounded.
TEST(Weights, HalvesOfTheFilesTypeAreTakenAsTheyAre) {
  using formats::StorageType;
  const fakes::TempDir dir;
  fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("mistral"), 3);
  for (fakes::TinyModel::Tensor& t : model.tensors) t.values[1] = 1e-7f;  // subnormal in f16
  fakes::write_hf_model(dir / "f16", model, StorageType::kF16);
  fakes::write_hf_model(dir / "bf16", model, StorageType::kBF16);
  for (const char* type : {"f16", "bf16"}) {
    for (const DType store : {DType::kF16, DType::kBF16}) {
      device::FakeGpu fake;
      ops::Ops ops = ops::fake_gpu_ops();
      ops.make_rows = note_rows;
      made_rows.clear();
      const auto files = formats::ModelFiles::open(dir / type).value();
      const auto weights = load_weights(files, fake, ops, store, {}, {});
      ASSERT_TRUE(weights);
      // The second matrix is the first layer's o, whose rows are in the file's order.
      const formats::TensorView& o = *files.find(formats::TensorRole::kO, 0);
      const auto got = halves_at(fake, made_rows.at(1), o.elements());
      std::vector<float> values(o.elements());
      formats::dequantize(o.type, o.data, values);
      std::vector<uint16_t> want(values.size());
      std::transform(values.begin(), values.end(), want.begin(),
                     store == DType::kF16 ? f32_to_f16 : f32_to_bf16);
      EXPECT_EQ(got, want) << type << " as " << name(store);
      if (type == name(store)) {
        EXPECT_EQ(std::memcmp(got.data(), o.data.data(), o.data.size()), 0) << type;
      }
    }
  }
}

}  // namespace
}  // namespace baton::model
