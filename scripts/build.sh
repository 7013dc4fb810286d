#!/usr/bin/env bash
# Configures and builds a preset: scripts/build.sh [PRESET [TARGET...]]; release and all by default.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
[ $# -gt 0 ] && shift
case "$preset" in
  asan | tsan | fuzz) job_mib=3072 ;;
  *) job_mib=1800 ;;
esac

# What a container may use, or else what the machine has left.
available_mib() {
  local free limit
  free=$(awk '/^MemAvailable:/ {print int($2 / 1024)}' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
  if [ "$limit" != max ] && [ $((limit >> 20)) -lt "$free" ]; then
    free=$((limit >> 20))
  fi
  echo "$free"
}

jobs=$(($(available_mib) / job_mib))
[ "$jobs" -gt "$(nproc)" ] && jobs=$(nproc)
[ "$jobs" -lt 1 ] && jobs=1

if [ ! -f "build/$preset/build.ninja" ]; then
  cmake --preset "$preset" >&2
fi
targets=()
[ $# -gt 0 ] && targets=(--target "$@")
cmake --build "build/$preset" --parallel "$jobs" "${targets[@]}" >&2
