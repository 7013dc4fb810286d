#include "kvtransfer/memory_map.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "kvtransfer/host_buffer.h"

namespace baton::kvtransfer {
namespace {

// Pages of an object of their own, shared.
class SharedPages {
 public:
  explicit SharedPages(size_t pages) : bytes_(pages * page()) {
    const int fd = ::memfd_create("memory_map_test", 0);
    EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(bytes_)), 0);
    at_ = static_cast<char*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    EXPECT_NE(at_, MAP_FAILED);
    ::close(fd);
  }
  ~SharedPages() { ::munmap(at_, bytes_); }
  static size_t page() { return static_cast<size_t>(::sysconf(_SC_PAGESIZE)); }
  char* page(size_t i) { return at_ + i * page(); }

 private:
  size_t bytes_;
  char* at_;
};

TEST(MemoryKind, TellsPrivateMemory) {
  const std::vector<char> heap(100);
  EXPECT_EQ(memory_kind(heap.data()), "private");
  EXPECT_EQ(memory_kind(nullptr), "?");
}

TEST(MappedBytes, EndWhereTheObjectIsNotMappedOrReadable) {
  SharedPages pages(8);
  const size_t page = SharedPages::page();
  ::munmap(pages.page(6), page);
  EXPECT_EQ(mapped_bytes_from(pages.page(0)), 6 * page);
  EXPECT_EQ(mapped_bytes_from(pages.page(2) + 5), 4 * page - 5);
  EXPECT_EQ(mapped_bytes_from(pages.page(6)), 0u);
  ASSERT_EQ(::mprotect(pages.page(1), page, PROT_READ), 0);
  EXPECT_EQ(mapped_bytes_from(pages.page(0)), 6 * page) << "three mappings of one object";
  ASSERT_EQ(::mprotect(pages.page(3), page, PROT_NONE), 0);
  EXPECT_EQ(mapped_bytes_from(pages.page(0)), 3 * page);
  EXPECT_EQ(mapped_bytes_from(pages.page(3)), 0u);
  EXPECT_EQ(mapped_bytes_from(nullptr), 0u);
}

TEST(HugePages, AreAskedForWithoutHarm) {
  SharedPages pages(4);
  prefer_huge_pages(pages.page(0) + 10, 2 * SharedPages::page());
  pages.page(0)[0] = pages.page(3)[0] = 1;
  prefer_huge_pages(nullptr, 0);
}

}  // namespace
}  // namespace baton::kvtransfer
