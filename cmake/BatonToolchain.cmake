# Compiler, linker, cache and sanitizers: one place, so that every target agrees.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(BATON_CCACHE ccache)
if(BATON_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BATON_CCACHE})
endif()
find_program(BATON_MOLD mold)
if(BATON_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# A test's own code runs for an instant, and takes a fifth less to compile so. (GCC then inlines an
# operator delete that counts, but not its new, and takes them for a mismatch.)
set(BATON_TEST_OPTIONS $<$<CONFIG:Release>:-O1>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND BATON_TEST_OPTIONS -Wno-mismatched-new-delete)
endif()
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall$<SEMICOLON>-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>)
# Every fused multiply-add in Baton is written out; the compiler adds none, so that a
# row's result cannot depend on which loop computed it.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
endif()

if(BATON_SANITIZE)
  add_compile_options(-fsanitize=${BATON_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${BATON_SANITIZE})
  if(BATON_SANITIZE MATCHES "undefined")
    # Opens a pipe for each check, and is wrong where a test has used up the descriptors.
    add_compile_options(-fno-sanitize=vptr)
  endif()
endif()

if(BATON_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "BATON_FUZZ needs clang: use the preset fuzz")
  endif()
  # libFuzzer is blind in code that counts no edges: the libraries need it, not the targets alone.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
