#include "tests/fakes/fake_gpu.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace baton::device {
namespace {

class FakeEvent final : public Event {
 public:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    uint64_t recorded = 0;  // how often
    uint64_t passed = 0;    // the latest record that its stream has passed
  };

  bool done() const override {
    const std::lock_guard lock(state_->mutex);
    return state_->passed >= state_->recorded;
  }
  void wait() override { wait(*state_, recorded()); }

  // Waits for what was recorded last; nothing, where nothing ever was.
  uint64_t recorded() const {
    const std::lock_guard lock(state_->mutex);
    return state_->recorded;
  }
  static void wait(State& state, uint64_t record) {
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return state.passed >= record; });
  }
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

class FakeGraph final : public Graph {
 public:
  explicit FakeGraph(std::vector<FakeStream::Work> work) : work_(std::move(work)) {}
  ~FakeGraph() override {
    if (*running_ != 0) fake_gpu_dies("a graph ended before its launches did");
  }
  const std::vector<FakeStream::Work>& work() const { return work_; }
  const std::shared_ptr<std::atomic<int>>& running() const { return running_; }

 private:
  const std::vector<FakeStream::Work> work_;
  const std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace

FakeGpu::FakeGpu(uint64_t seed)
    : info_{.kind = "fake-gpu", .runs_inline = false, .host_addressable = false, .captures = true},
      seed_(seed),
      memory_(std::make_shared<FakeGpuMemory>()),
      cpu_(make_cpu_device(1)) {}

void FakeGpu::must_not_capture(const char* what) const {
  if (capturing_ > 0) fake_gpu_dies(std::string(what) + " while a stream records");
}

result<Buffer> FakeGpu::allocate(size_t bytes) {
  must_not_capture("an allocation");
  return memory_->allocate(bytes);
}

result<Buffer> FakeGpu::allocate_host(size_t bytes) {
  must_not_capture("an allocation");
  return memory_->allocate_host(bytes);
}

result<Buffer> FakeGpu::lock_host(void* data, size_t bytes) {
  must_not_capture("a lock of memory");
  return memory_->lock_host(data, bytes);
}

std::unique_ptr<Stream> FakeGpu::make_stream() {
  must_not_capture("a new stream");
  return std::make_unique<FakeStream>(*this, seed_ * 1000 + streams_++);
}

void FakeGpu::copy(Stream& stream, void* dst, const void* src, size_t bytes) {
  if (bytes == 0) return;
  ++counts_.copies;
  auto& s = static_cast<FakeStream&>(stream);
  const auto real = [&memory = s.memory(), pageable = !s.is_capturing()](void* p, size_t n) {
    return pageable ? memory.real_or_host(p, n) : memory.real(p, n);
  };
  void* const from = const_cast<void*>(src);
  real(dst, bytes), real(from, bytes);  // a wrong address dies where its caller is to be seen
  s.enqueue([=](CpuStream&) { std::memcpy(real(dst, bytes), real(from, bytes), bytes); });
}

void FakeGpu::hold() {
  {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  changed_.notify_all();
}

void FakeGpu::wait_until_held() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return held_; });
}

void FakeGpu::let_go() {
  {
    const std::lock_guard lock(mutex_);
    held_ = false;
  }
  changed_.notify_all();
}

void FakeGpu::before_work(std::mt19937_64& random) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
  }
  const int most = jitter_us_;
  if (most > 0 && random() % 8 == 0) {
    std::this_thread::sleep_for(
        std::chrono::microseconds(random() % static_cast<uint64_t>(most + 1)));
  }
}

FakeStream::FakeStream(FakeGpu& gpu, uint64_t seed)
    : gpu_(gpu), random_(seed), cpu_(gpu.cpu_->make_stream()), thread_([this] { run(); }) {}

FakeStream::~FakeStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void FakeStream::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    Work work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    gpu_.before_work(random_);
    work(static_cast<CpuStream&>(*cpu_));
    work = nullptr;
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

void FakeStream::must_not_capture(const char* what) const {
  if (capturing_) fake_gpu_dies(std::string(what) + " is recorded");
}

void FakeStream::enqueue(Work work) {
  if (capturing_) {
    recorded_.push_back(std::move(work));
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(work));
    ++enqueued_;
  }
  changed_.notify_all();
}

std::unique_ptr<Event> FakeStream::make_event() { return std::make_unique<FakeEvent>(); }

void FakeStream::record(Event& event) {
  must_not_capture("an event");
  const auto state = static_cast<FakeEvent&>(event).state();
  uint64_t record = 0;
  {
    const std::lock_guard lock(state->mutex);
    record = ++state->recorded;
  }
  enqueue([state, record](CpuStream&) {
    {
      const std::lock_guard lock(state->mutex);
      state->passed = std::max(state->passed, record);
    }
    state->changed.notify_all();
  });
}

void FakeStream::wait(Event& event) {
  must_not_capture("a wait");
  auto& fake = static_cast<FakeEvent&>(event);
  enqueue([state = fake.state(), record = fake.recorded()](CpuStream&) {
    FakeEvent::wait(*state, record);
  });
}

void FakeStream::synchronize() {
  must_not_capture("synchronize()");
  std::unique_lock lock(mutex_);
  const uint64_t all = enqueued_;
  changed_.wait(lock, [&] { return done_ >= all; });
}

void FakeStream::notify(std::function<void()> call) {
  must_not_capture("notify()");
  enqueue([call = std::move(call)](CpuStream&) { call(); });
}

void FakeStream::begin_capture() {
  must_not_capture("begin_capture()");
  capturing_ = true;
  ++gpu_.capturing_;
}

std::unique_ptr<Graph> FakeStream::end_capture() {
  if (!capturing_) fake_gpu_dies("end_capture() without begin_capture()");
  capturing_ = false;
  --gpu_.capturing_;
  std::vector<Work> work = std::exchange(recorded_, {});
  if (gpu_.captures_fail_) return nullptr;
  ++gpu_.counts_.captures;
  return std::make_unique<FakeGraph>(std::move(work));
}

void FakeStream::launch(const Graph& graph) {
  must_not_capture("a launch");
  ++gpu_.counts_.launches;
  const auto& fake = static_cast<const FakeGraph&>(graph);
  ++*fake.running();
  for (const Work& work : fake.work()) enqueue(work);
  enqueue([running = fake.running()](CpuStream&) { --*running; });
}

}  // namespace baton::device
