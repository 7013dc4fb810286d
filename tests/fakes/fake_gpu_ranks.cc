#include "tests/fakes/fake_gpu_ranks.h"

#include <numeric>
#include <utility>
#include <vector>

#include "common/collective/host_sums.h"
#include "common/device/cpu/cpu_device.h"
#include "tests/fakes/fake_gpu.h"

namespace baton::fakes {
namespace {

using collective::Collective;
using device::FakeStream;

class FakeGpuRanks final : public Collective {
 public:
  FakeGpuRanks(std::unique_ptr<Collective> gathers, std::unique_ptr<Collective> sums)
      : gathers_(std::move(gathers)), sums_(std::move(sums)) {}

  uint32_t rank() const override { return gathers_->rank(); }
  uint32_t size() const override { return gathers_->size(); }

  void all_gather(device::Stream& stream, const std::byte* part, std::span<const size_t> bytes,
                  std::byte* all) override {
    auto& s = static_cast<FakeStream&>(stream);
    s.enqueue([this, &memory = s.memory(), part, all,
               bytes = std::vector<size_t>(bytes.begin(), bytes.end())](device::CpuStream& cpu) {
      const size_t sum = std::accumulate(bytes.begin(), bytes.end(), size_t{0});
      gathers_->all_gather(cpu, static_cast<const std::byte*>(memory.real(part, bytes[rank()])),
                           bytes, static_cast<std::byte*>(memory.real(all, sum)));
    });
  }
  void sum_on_first(std::span<uint64_t> values) override { sums_.sum_on_first(values); }
  void tell_under_way(bool) override {}
  void give_up(const Error& why) override {
    gathers_->give_up(why);
    sums_.ranks().give_up(why);
  }
  status health() const override {
    const status gathered = gathers_->health();
    return gathered ? sums_.ranks().health() : gathered;
  }

 private:
  const std::unique_ptr<Collective> gathers_;  // used by the stream's thread
  collective::HostSums sums_;
};

}  // namespace

result<std::unique_ptr<Collective>> connect_fake_gpus(uint32_t rank, uint32_t size,
                                                      const collective::Exchange& exchange,
                                                      milliseconds timeout) {
  BATON_TRY(auto gathers, collective::connect_gloo(rank, size, exchange, timeout));
  BATON_TRY(auto sums, collective::connect_gloo(rank, size, exchange, timeout));
  return std::unique_ptr<Collective>(
      std::make_unique<FakeGpuRanks>(std::move(gathers), std::move(sums)));
}

}  // namespace baton::fakes
