#include "tests/gpu/kernel_trace.h"

#if __has_include(<cupti.h>)
#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

namespace baton::gpu {
namespace {

constexpr size_t kBufferBytes = size_t{8} << 20;
constexpr std::align_val_t kAlign{8};  // what CUPTI asks for

#if CUPTI_API_VERSION >= 130000
using Kernel = CUpti_ActivityKernel10;
#else
using Kernel = CUpti_ActivityKernel9;
#endif

struct Interval {
  uint64_t begin, end;  // ns
};

// CUPTI's callbacks have nowhere to put a pointer of ours.
struct Seen {
  std::vector<Interval> intervals;
  uint64_t kernels = 0;
  bool is_whole = true;  // nothing was dropped
};
Seen seen;

// The few functions of CUPTI that are used, from wherever it lies.
class Cupti {
 public:
  static const Cupti* get() {
    static const Cupti here;
    return here.ok_ ? &here : nullptr;
  }
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&cuptiActivityEnable) enable = nullptr;
  decltype(&cuptiActivityDisable) disable = nullptr;
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next_record = nullptr;
  decltype(&cuptiActivityGetNumDroppedRecords) dropped = nullptr;

 private:
  Cupti() {
    const char* const named = std::getenv("BATON_CUPTI");
    for (const char* path : {named, "libcupti.so.13", "libcupti.so.12", "libcupti.so"}) {
      if (path != nullptr && library_ == nullptr) library_ = ::dlopen(path, RTLD_NOW);
    }
    if (library_ == nullptr) return;
    ok_ = load(register_callbacks, "cuptiActivityRegisterCallbacks") &&
          load(enable, "cuptiActivityEnable") && load(disable, "cuptiActivityDisable") &&
          load(flush, "cuptiActivityFlushAll") && load(next_record, "cuptiActivityGetNextRecord") &&
          load(dropped, "cuptiActivityGetNumDroppedRecords");
  }
  template <class F>
  bool load(F& function, const char* name) {
    function = reinterpret_cast<F>(::dlsym(library_, name));
    return function != nullptr;
  }
  void* library_ = nullptr;  // stays
  bool ok_ = false;
};

void note(const CUpti_Activity& record) {
  switch (record.kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto& kernel = reinterpret_cast<const Kernel&>(record);
      seen.intervals.push_back({kernel.start, kernel.end});
      ++seen.kernels;
      return;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy5&>(record);
      seen.intervals.push_back({copy.start, copy.end});
      return;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto& set = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
      seen.intervals.push_back({set.start, set.end});
      return;
    }
    default:
      return;
  }
}

void CUPTIAPI want_buffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(::operator new(kBufferBytes, kAlign, std::nothrow));
  *bytes = *buffer == nullptr ? 0 : kBufferBytes;
  *most_records = 0;  // as many as fit
}

void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t,
                          size_t valid_bytes) {
  const Cupti& cupti = *Cupti::get();
  CUpti_Activity* record = nullptr;
  while (cupti.next_record(buffer, valid_bytes, &record) == CUPTI_SUCCESS) note(*record);
  size_t lost = 0;
  if (cupti.dropped(context, stream, &lost) != CUPTI_SUCCESS || lost > 0) seen.is_whole = false;
  ::operator delete(buffer, kAlign);
}

// Kernels may overlap: the next one's first blocks start while the last ones of the one before run.
Busy busy_of(std::vector<Interval> intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  Busy busy;
  uint64_t end = intervals.front().begin, idle = 0;
  for (const Interval& i : intervals) {
    if (i.begin > end) idle += i.begin - end;
    end = std::max(end, i.end);
  }
  busy.span_s = static_cast<double>(end - intervals.front().begin) * 1e-9;
  busy.idle_s = static_cast<double>(idle) * 1e-9;
  return busy;
}

}  // namespace

std::optional<Busy> trace_kernels(const std::function<void()>& work) {
  const Cupti* const cupti = Cupti::get();
  if (cupti == nullptr) return std::nullopt;
  constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                           CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET};
  seen = {};
  bool ok = cupti->register_callbacks(want_buffer, take_buffer) == CUPTI_SUCCESS;
  for (const auto kind : kKinds) ok = ok && cupti->enable(kind) == CUPTI_SUCCESS;
  if (ok) {
    work();
    ok = cupti->flush(0) == CUPTI_SUCCESS;
  }
  for (const auto kind : kKinds) ok = cupti->disable(kind) == CUPTI_SUCCESS && ok;
  if (!ok || !seen.is_whole || seen.intervals.empty()) return std::nullopt;
  Busy busy = busy_of(std::exchange(seen.intervals, {}));
  busy.kernels = seen.kernels;
  return busy;
}

}  // namespace baton::gpu

#else

namespace baton::gpu {

std::optional<Busy> trace_kernels(const std::function<void()>&) { return std::nullopt; }

}  // namespace baton::gpu

#endif
