# The CUDA compiler and what is built with it. Without BATON_CUDA nothing here asks for either.
if(NOT BATON_CUDA)
  return()
endif()
if(BATON_SANITIZE)
  message(FATAL_ERROR "BATON_CUDA does not go with BATON_SANITIZE: use compute-sanitizer instead")
endif()
if(BATON_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${BATON_CCACHE})
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # CMake 3.25 does not know sm_90a; the flags are below
if(NOT DEFINED ENV{CUDACXX})
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "BATON_CUDA needs NVIDIA's nvcc 12.4 or newer, and none was found: put it on "
                      "the PATH, or name it in the environment variable CUDACXX")
endif()
enable_language(CUDA)
find_package(CUDAToolkit 12.4 REQUIRED)

# CMake 3.25 does not know that nvcc speaks C++20: it is told by hand. (Boost's and others' targets
# ask for C++ features, from which CMake would work out a CUDA standard.)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_COMPILE_FEATURES ${CMAKE_CUDA_COMPILE_FEATURES} cuda_std_20)
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;-Xcompiler=-Wall>")
foreach(target IN LISTS BATON_CUDA_TARGETS)
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-gencode=arch=compute_${target},code=sm_${target}>")
endforeach()
# PTX, for GPUs that are newer than any of these.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-gencode=arch=compute_90,code=compute_90>")
