#include "tests/kvtransfer/peer.h"

#include <sstream>
#include <vector>

namespace baton::kvtransfer {
namespace {

std::vector<std::string> arguments(const std::string& tls, uint64_t id, const std::string& timers) {
  std::vector<std::string> words = {tls, std::to_string(id)};
  std::istringstream more(timers);
  for (std::string word; more >> word;) words.push_back(word);
  return words;
}

}  // namespace

Peer::Peer(const std::string& tls, uint64_t id, const std::string& timers)
    : TalkingChild("kvtransfer_peer", arguments(tls, id, timers), milliseconds(5000)) {}

}  // namespace baton::kvtransfer
