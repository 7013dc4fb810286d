include(GoogleTest)

# baton_library(NAME SRCS a.cc b.cc DEPS x y): one folder, one target, its dependencies
# written out. The target is called baton_NAME and may be linked as baton::NAME.
function(baton_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(baton_${name} STATIC ${ARG_SRCS})
    target_include_directories(baton_${name} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(baton_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
    baton_precompile(baton_${name} product)
  else()
    add_library(baton_${name} INTERFACE)
    target_include_directories(baton_${name} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(baton_${name} INTERFACE ${ARG_DEPS})
  endif()
  add_library(baton::${name} ALIAS baton_${name})
endfunction()

# baton_test(NAME SRCS a_test.cc DEPS x y): a GoogleTest program whose cases ctest lists. EVERY_ISA:
# a second time with the instruction set capped, so that the kernels of older machines run, too.
function(baton_test name)
  cmake_parse_arguments(ARG "EVERY_ISA" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(BATON_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 6")
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE BATON_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${BATON_TEST_OPTIONS})
  baton_precompile(${name} tests)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES
                       PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS unit)
  if(ARG_EVERY_ISA AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES TEST_PREFIX avx2.
                         PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS unit
                                    ENVIRONMENT BATON_MAX_ISA=avx2)
  endif()
endfunction()

# baton_benchmark(NAME SRCS a_bench.cc DEPS x y): a Google Benchmark program, never a test.
function(baton_benchmark name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(BATON_BENCHMARKS)
    add_executable(${name} ${ARG_SRCS})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE ${ARG_DEPS} benchmark::benchmark_main)
  endif()
endfunction()

# baton_fuzz(NAME SRCS a_fuzz.cc DEPS x y): a libFuzzer target, built with clang and BATON_FUZZ=ON.
function(baton_fuzz name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(BATON_FUZZ)
    add_executable(${name} ${ARG_SRCS})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  endif()
endfunction()
