#pragma once

#include <string>

#include "tests/router/cpu_use.h"

namespace baton::router {

// Gives the calling thread, and those that it starts from now on, a network namespace with nothing
// but a loopback in it, in which
//   - what a packet costs whoever receives it is paid by the processors beside the measured one, as
//     if the client were another machine behind a network card (receive packet steering),
//   - TCP is Reno without pacing, whatever the system has.
// Needs CAP_SYS_ADMIN. Says what came of it: to be printed beside the figures. To be called before
// there are other threads.
std::string take_own_network(const Processors& processors);

}  // namespace baton::router
