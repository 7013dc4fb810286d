#pragma once

#include <string>
#include <vector>

#include "common/base/config.h"

namespace baton::cli {

// --slo-class and --default-slo-class, which `baton up` hands to its router. Checked by
// router::parse_slo_classes().
void add_slo_options(Options& options, std::vector<std::string>& classes,
                     std::string& default_class);

}  // namespace baton::cli
