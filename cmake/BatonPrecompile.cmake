# Two thirds of the time to compile Baton went into the same headers of the standard library, fmt and
# GoogleTest. With GCC they are parsed once: into one header for what is in the product, and one for
# the tests. Off for clang and where sanitizers are asked for, so that a source file that leans on
# the headers that others need does not build everywhere.
set(BATON_PRECOMPILE_DEFAULT OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT BATON_SANITIZE)
  set(BATON_PRECOMPILE_DEFAULT ON)
endif()
option(BATON_PRECOMPILE "Parse the standard library's headers once" ${BATON_PRECOMPILE_DEFAULT})

# baton_precompile(TARGET WHICH): WHICH is `product` or `tests`.
function(baton_precompile target which)
  if(BATON_PRECOMPILE)
    target_precompile_headers(${target} REUSE_FROM baton_precompiled_${which})
  endif()
endfunction()

if(NOT BATON_PRECOMPILE)
  return()
endif()

# What comes from a precompiled header is no system header's any more to GCC 12, which then warns of
# the insides of std::string and std::optional.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-maybe-uninitialized>")
# What ccache needs for them, and to read 100 MB once instead of for each source file.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
if(BATON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_INODECACHE=true
      ${BATON_CCACHE})
endif()

set(BATON_PRECOMPILED_HEADERS
  <algorithm> <array> <atomic> <charconv> <chrono> <cmath> <condition_variable> <cstdint> <cstring>
  <deque> <filesystem> <fstream> <functional> <map> <memory> <mutex> <numeric> <optional> <random>
  <ranges> <set> <span> <sstream> <string> <string_view> <thread> <tuple> <unordered_map> <utility>
  <variant> <vector> <fmt/format.h>)
set(BATON_PRECOMPILED_SOURCE ${CMAKE_BINARY_DIR}/precompiled.cc)
file(CONFIGURE OUTPUT ${BATON_PRECOMPILED_SOURCE} CONTENT "")
add_library(baton_precompiled_product OBJECT ${BATON_PRECOMPILED_SOURCE})
target_link_libraries(baton_precompiled_product PRIVATE fmt::fmt)
target_precompile_headers(baton_precompiled_product PRIVATE ${BATON_PRECOMPILED_HEADERS})
if(BATON_TESTS)
  add_library(baton_precompiled_tests OBJECT ${BATON_PRECOMPILED_SOURCE})
  target_link_libraries(baton_precompiled_tests PRIVATE fmt::fmt GTest::gmock)
  target_compile_options(baton_precompiled_tests PRIVATE ${BATON_TEST_OPTIONS})
  target_precompile_headers(baton_precompiled_tests PRIVATE ${BATON_PRECOMPILED_HEADERS}
                            <gmock/gmock.h> <gtest/gtest.h>)
endif()
