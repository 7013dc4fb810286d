#pragma once

// What the fake NCCL (fake_nccl.cc, a library of its own that is loaded as the real one is) lets
// tests do; found in it by these names.
namespace baton::fakes {

struct FakeNcclControl {
  // From now on a rank's communicators report this asynchronous error.
  void (*set_async_error)(int rank, int error);
  // A rank's next ncclCommInitRank fails with this.
  void (*refuse_next_init)(int rank, int error);
  int (*count)(const char* call);  // so far: "ncclAllGather", "ncclBroadcast", "ncclCommAbort"
  void* (*last_stream)();          // that something was enqueued on
};

}  // namespace baton::fakes

extern "C" const baton::fakes::FakeNcclControl* fake_nccl_control();
