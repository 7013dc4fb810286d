#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"

// Looking names up without waiting for whoever knows them. The system cannot be told to stop
// looking, and the end of an io_context waits for Asio's own resolver; nobody waits for these.
namespace baton::net {

struct FoundName {
  std::vector<boost::asio::ip::tcp::endpoint> endpoints;  // none only if it failed
  boost::system::error_code failed;
};

// Where host:port is. May block for as long as the system takes; called on a thread of its own,
// which may outlive whoever asked: it owns what it uses.
using NameLookup = std::function<FoundName(const std::string& host, const std::string& port)>;
FoundName ask_system(const std::string& host, const std::string& port);

// One name, looked up as often as it is asked to. On the thread of the executor; nothing blocks.
class NameQuery {
 public:
  using Answered = std::function<void(const FoundName& found)>;

  NameQuery(boost::asio::any_io_executor executor, NameLookup lookup, std::string host,
            std::string port);
  ~NameQuery();  // forgets
  NameQuery(const NameQuery&) = delete;
  NameQuery& operator=(const NameQuery&) = delete;

  // Calls `answered` later, once, unless it is forgotten or replaced before; until then the
  // io_context runs on. While the system still looks on behalf of somebody who was forgotten, its
  // answer does for this one, too: there is at most one thread.
  void ask(Answered answered);
  void forget();

 private:
  struct Shared;
  static void look(const std::shared_ptr<Shared>& shared);
  static void tell(const std::shared_ptr<Shared>& shared, FoundName found);

  const boost::asio::any_io_executor executor_;
  const std::shared_ptr<Shared> shared_;
  std::optional<boost::asio::executor_work_guard<boost::asio::any_io_executor>> waiting_;
};

// Waits for the answer, at most so long: then timed_out.
boost::asio::awaitable<FoundName> look_up(NameLookup lookup, std::string host, std::string port,
                                          Duration within);

}  // namespace baton::net
