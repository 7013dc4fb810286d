#include "common/collective/collective.h"

namespace baton::collective {

result<std::unique_ptr<Collective>> connect_gloo(uint32_t, uint32_t, const Exchange&,
                                                 milliseconds) {
  return error(Errc::kUnsupported, "this build has no Gloo, which tensor parallelism needs");
}

}  // namespace baton::collective
