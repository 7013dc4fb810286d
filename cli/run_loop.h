#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>

namespace baton::cli {

// A SIGHUP that comes from here on waits for run_until_drained(). Before threads are made, which
// take after the one that makes them.
void hold_hangups();

// Runs the loop until `drain`'s continuation is called. The first SIGTERM or SIGINT drains, the
// second ends the process at once. SIGHUP calls `reload`; where there is none it ends the process,
// as it is wont to. `ready` is called when signals do so: whoever is told that this process serves
// may end it.
void run_until_drained(boost::asio::io_context& io, const std::function<void()>& ready,
                       const std::function<void(std::function<void()> done)>& drain,
                       const std::function<void()>& reload = {});

}  // namespace baton::cli
