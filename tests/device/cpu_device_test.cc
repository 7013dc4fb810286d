#include "common/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/device/tensor.h"

namespace baton::device {
namespace {

TEST(CpuDevice, DescribesItself) {
  const auto device = make_cpu_device(3);
  EXPECT_EQ(device->info().kind, "cpu");
  EXPECT_EQ(device->info().threads, 3u);
  EXPECT_TRUE(device->info().runs_inline);
  EXPECT_TRUE(device->info().host_addressable);
}

TEST(CpuDevice, AllocatesAlignedMemory) {
  const auto device = make_cpu_device(1);
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{100}, size_t{5} << 20}) {
    auto buffer = device->allocate(bytes);
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    if (bytes > 0) std::memset(buffer->data(), 1, bytes);
    Buffer moved = std::move(*buffer);
    EXPECT_EQ(moved.bytes(), bytes);
  }
}

TEST(CpuDevice, BuffersOfAllSizesAreDistinctAndOutliveTheDevice) {
  auto device = make_cpu_device(1);
  std::vector<Buffer> buffers;
  for (size_t i = 0; i < 120; ++i) {
    const size_t bytes = (size_t{10} << 10) << (i % 11);  // 10 KB to 10 MB
    auto buffer = device->allocate(bytes);
    ASSERT_TRUE(buffer);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    std::memset(buffer->data(), static_cast<int>(i), bytes);
    buffers.push_back(std::move(*buffer));
    if (i % 3 == 0) buffers[i / 2] = Buffer();
  }
  device.reset();
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].data() == nullptr) continue;
    EXPECT_EQ(buffers[i].data()[0], std::byte(i));
    EXPECT_EQ(buffers[i].data()[buffers[i].bytes() - 1], std::byte(i));
  }
}

TEST(CpuDevice, RefusesWhatNoMachineHas) {
  const auto device = make_cpu_device(1);
  for (const size_t bytes : {SIZE_MAX, SIZE_MAX / 2}) {
    const auto buffer = device->allocate(bytes);
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code, Errc::kResourceExhausted);
  }
}

TEST(CpuDevice, CopiesAndItsEventsAreDone) {
  const auto device = make_cpu_device(2);
  const auto stream = device->make_stream();
  const char from[] = "hand-off";
  char to[sizeof(from)] = {};
  device->copy(*stream, to, from, sizeof(from));
  EXPECT_STREQ(to, from);
  const auto event = stream->make_event();
  stream->record(*event);
  EXPECT_TRUE(event->done());
  event->wait();
  stream->synchronize();
}

TEST(Scratch, GrowsAndIsReused) {
  Scratch scratch;
  float* small = scratch.get<float>(10);
  EXPECT_EQ(scratch.get<float>(10), small);
  EXPECT_EQ(scratch.get<float>(5), small);
  double* large = scratch.get<double>(100000);
  std::fill_n(large, 100000, 1.0);
  EXPECT_EQ(reinterpret_cast<void*>(scratch.get<float>(7)), large);
}

TEST(Tensor, SlicesAreViews) {
  float data[12];
  for (int i = 0; i < 12; ++i) data[i] = static_cast<float>(i);
  const Tensor t = Tensor::matrix(data, DType::kF32, 3, 4);
  const Tensor middle = t.slice_rows(1, 2).slice_cols(2, 2);
  EXPECT_EQ(middle.rows, 2);
  EXPECT_EQ(middle.cols, 2);
  EXPECT_EQ(middle.row<float>(0)[0], 6.0f);
  EXPECT_EQ(middle.row<float>(1)[1], 11.0f);
}

}  // namespace
}  // namespace baton::device
