#!/usr/bin/env bash
# Installs the packages that Baton is built and tested with, if any are missing.
# Debian 12 and 13, Ubuntu 24.04. Says what it installs before it does; does nothing when all is there.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/install_deps.sh [--ci] [--print]
  --ci      with what only tests need and is large or would run on a desktop: Prometheus, haproxy,
            Chromium
  --print   only list the packages that are missing
USAGE
}

print_only=false
ci=false
for option in "$@"; do
  case "$option" in
    --ci) ci=true ;;
    --print) print_only=true ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

# shellcheck source=/dev/null
. /etc/os-release
case "${ID:-}-${VERSION_ID:-}" in
  debian-12) boost=1.81 ;;
  debian-13 | ubuntu-24.04) boost=1.83 ;;
  *)
    if ! command -v apt-get >/dev/null; then
      echo "install_deps: ${PRETTY_NAME:-this system} has no apt-get;" \
        "the packages to look for are listed in scripts/install_deps.sh" >&2
      exit 1
    fi
    boost=1.83
    echo "install_deps: ${PRETTY_NAME:-this system} is untested; trying Ubuntu 24.04's names" >&2
    ;;
esac

packages=(
  # To build
  g++ cmake ninja-build pkg-config ccache mold git
  # Libraries
  libucx-dev
  "libboost${boost}-dev" "libboost-json${boost}-dev" "libboost-url${boost}-dev"
  protobuf-compiler libprotobuf-dev
  libyaml-cpp-dev prometheus-cpp-dev libspdlog-dev libfmt-dev libcli11-dev
  libpcre2-dev libutf8proc-dev libssl-dev libxxhash-dev
  libdnnl-dev libhwy-dev libgloo-dev
  # To test, and to fetch the quick-start model
  libgtest-dev libgmock-dev libbenchmark-dev
  python3 python3-venv python3-pip curl ca-certificates iproute2
)

if $ci; then
  packages+=(prometheus haproxy)
  # Ubuntu has it as a snap only, which is no use here: its tests are left out there.
  if [ "${ID:-}" = debian ]; then packages+=(chromium); fi
fi

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done

if [ ${#missing[@]} -eq 0 ]; then
  echo "install_deps: all ${#packages[@]} packages are there" >&2
  exit 0
fi
if $print_only; then
  printf '%s\n' "${missing[@]}"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install_deps: not root and no sudo here. As root, run:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo --preserve-env=http_proxy,https_proxy,no_proxy)
fi

echo "install_deps: installing ${#missing[@]} packages with apt-get: ${missing[*]}" >&2
apt_options=(-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
if [ -n "$(dpkg --audit)" ]; then
  echo "install_deps: finishing an interrupted installation with dpkg --configure -a" >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >&2
fi
"${as_root[@]}" apt-get "${apt_options[@]}" update >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get "${apt_options[@]}" install -y --no-install-recommends "${missing[@]}" >&2
