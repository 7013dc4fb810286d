#include "cli/shared_secret.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/net/auth.h"

namespace baton::cli {

result<std::string> draw_secret_file() {
  BATON_TRY(const net::Nonce secret, net::random_nonce());
  std::string line;
  for (const uint8_t byte : secret) {
    constexpr char kDigits[] = "0123456789abcdef";
    line += kDigits[byte >> 4];
    line += kDigits[byte & 15];
  }
  line += '\n';
  const int fd = memfd_create("baton-secret", 0);  // not closed on exec: it is for children
  if (fd < 0 || fchmod(fd, S_IRUSR) != 0 ||
      write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return error(Errc::kIo, std::string("a file in memory for the secret: ") + strerror(errno));
  }
  return "/proc/self/fd/" + std::to_string(fd);
}

}  // namespace baton::cli
