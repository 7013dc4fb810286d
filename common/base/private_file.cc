#include "common/base/private_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace baton {

status check_private(const std::filesystem::path& path) {
  struct stat about;
  if (stat(path.c_str(), &about) != 0) {
    return error(Errc::kIo, std::string("cannot be read: ") + std::strerror(errno));
  }
  if ((about.st_mode & (S_IROTH | S_IWOTH)) == 0) return {};
  return error(Errc::kInvalidArgument, "everybody may read it; chmod 600");
}

}  // namespace baton
