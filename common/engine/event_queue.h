#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/result.h"
#include "common/engine/step.h"

namespace baton::engine {

// What the engine tells its owner.
struct EngineEvent {
  enum class Kind : uint8_t { kLayerDone, kStepDone, kFailed };
  Kind kind = Kind::kStepDone;
  uint32_t layer = 0;  // kLayerDone
  StepBatch* batch = nullptr;
};

// Events from one thread to another, in order, with a descriptor that is readable while there may
// be some. Bounded and allocated once; the writer must know that there is room.
class EventQueue {
 public:
  // kIo where the system has no descriptor.
  static result<std::unique_ptr<EventQueue>> create(size_t capacity);
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  void push(const EngineEvent& event);  // the writer
  bool pop(EngineEvent& event);         // the reader; false if there is none, never blocks
  int fd() const { return fd_; }

 private:
  EventQueue(int fd, size_t capacity) : fd_(fd), events_(capacity) {}
  bool take(EngineEvent& event);

  const int fd_;  // an eventfd
  std::vector<EngineEvent> events_;
  alignas(64) std::atomic<size_t> written_{0};
  alignas(64) std::atomic<size_t> read_{0};
};

}  // namespace baton::engine
