#include "cli/slo_options.h"

namespace baton::cli {

void add_slo_options(Options& options, std::vector<std::string>& classes,
                     std::string& default_class) {
  options.add("slo-class", &classes,
              "What requests may ask for: 'NAME: ttft=500ms, tpot=50ms' or 'NAME: best-effort'; "
              "once for each class");
  options.add("default-slo-class", &default_class,
              "Class of requests that name none; empty: the one called default, or the first");
}

}  // namespace baton::cli
