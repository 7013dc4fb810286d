#include "common/model/upload_ring.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <vector>

#include "tests/fakes/fake_gpu.h"

namespace baton::model {
namespace {

TEST(UploadRing, APieceIsWrittenAgainWhenTheDeviceHasIt) {
  constexpr size_t kBytes = 4096, kPieces = 60;
  device::FakeGpu gpu;
  gpu.set_jitter(std::chrono::microseconds(2000));
  const auto stream = gpu.make_stream();
  const auto memory = gpu.allocate(kBytes * kPieces).value();
  UploadRing ring = UploadRing::create(gpu, *stream).value();
  for (size_t i = 0; i < kPieces; ++i) {
    std::memset(ring.next(), static_cast<int>(i), kBytes);
    ring.send(*stream, memory.data() + i * kBytes, kBytes);
  }
  std::vector<std::byte> got(memory.bytes());
  gpu.copy(*stream, got.data(), memory.data(), got.size());
  stream->synchronize();
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], static_cast<std::byte>(i / kBytes)) << i;
  }
}

}  // namespace
}  // namespace baton::model
