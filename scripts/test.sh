#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: ctest (C++), then pytest (real processes).
# Where nvcc is, what is for NVIDIA GPUs is compiled, too; its tests skip where there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage() {
  cat <<'USAGE'
Usage: scripts/test.sh [--asan | --tsan] [--fast] [--only PATTERN]
  --asan           build and run with the address and undefined-behaviour sanitizers
  --tsan           build and run with the thread sanitizer
  --fast           leave out the Python tests marked slow: kill and leak storms, the real model
  --only PATTERN   ctest -R PATTERN and pytest -k PATTERN
USAGE
}

preset=release
fast=false
only=
while [ $# -gt 0 ]; do
  case "$1" in
    --asan | --tsan) preset=${1#--} ;;
    --fast) fast=true ;;
    --only) only=${2:?--only needs a pattern} && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

./scripts/install_deps.sh || exit 1
command -v prometheus >/dev/null || echo "test.sh: no Prometheus here: tests with it are left out" \
  "(scripts/install_deps.sh --ci installs it)" >&2
command -v chromium >/dev/null || echo "test.sh: no Chromium here: the live page's tests are left out" \
  "(scripts/install_deps.sh --ci installs it)" >&2
./scripts/build.sh "$preset" || exit 1
BATON_TEST_MODEL=$(./scripts/get_model.sh | tail -n 1) || exit 1
python=$(./scripts/test_venv.sh | tail -n 1) || exit 1
BATON_KUBECTL=$(./scripts/get_kubectl.sh | tail -n 1) || exit 1
export BATON_TEST_MODEL BATON_KUBECTL
export BATON_TEST_BIN=$PWD/build/$preset/bin/baton

# UCX leaves the core's signal handlers to the sanitizers; TSan cannot bear its memory hooks.
# The sanitizers' memmem() reads the whole text however near a match is: minutes for many matches.
case "$preset" in
  asan)
    export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:intercept_memmem=0}
    export UBSAN_OPTIONS=print_stacktrace=1
    ;;
  tsan) export TSAN_OPTIONS=${TSAN_OPTIONS:-intercept_memmem=0} UCX_MEM_EVENTS=n ;;
esac

ctest_options=(--test-dir "build/$preset" --output-on-failure --parallel "$(nproc)")
pytest_options=()
if [ "$preset" != release ]; then
  export UCX_HANDLE_ERRORS=none BATON_TEST_PATIENCE=6
  pytest_options+=(-o timeout=1080)
fi
[ -z "$only" ] || ctest_options+=(-R "$only") pytest_options+=(-k "$only")
if $fast; then
  pytest_options+=(-m "not slow")
fi

# Compiles all operations, for every GPU that a release is for, and runs their tests.
test_cuda() {
  local begun=$SECONDS options=(--output-on-failure) status
  [ -z "$only" ] || options+=(-R "$only")
  ./scripts/build.sh cuda ops_cuda_test gpu_bench generate &&
    ctest --test-dir build/cuda/tests/ops/cuda "${options[@]}"
  status=$?
  echo "test.sh: CUDA took $((SECONDS - begun)) s" >&2
  return $status
}

ctest "${ctest_options[@]}"
cpp=$?
cuda=0
if [ "$preset" != release ]; then
  echo "test.sh: CUDA is left out: it does not go with sanitizers" >&2
elif PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null; then
  echo "test.sh: nvcc is here: building what is for CUDA (the preset cuda), and testing it" >&2
  test_cuda || cuda=1
else
  echo "test.sh: no nvcc here: what is for CUDA is left out" >&2
fi
"$python" -m pytest "${pytest_options[@]}"
py=$?
# A pattern may fit no Python test (pytest then exits 5).
[ "$py" -eq 5 ] && [ -n "$only" ] && py=0
[ "$cpp" -eq 0 ] && [ "$cuda" -eq 0 ] && [ "$py" -eq 0 ]
