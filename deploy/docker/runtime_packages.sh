#!/usr/bin/env bash
# Prints the Debian packages of the shared libraries that a program needs, one a line: what an image
# that only runs it must have. Libraries of no package (CUDA's own) come with the image's base.
# runtime_packages.sh PROGRAM
set -euo pipefail

libraries=$(ldd "$1")
if grep "not found" <<<"$libraries" >&2; then
  exit 1
fi
# A library is called by its link or its file, and below /lib or /usr/lib, which are the same: packages
# know one of these.
awk '$3 ~ "^/" {print $3}' <<<"$libraries" | while read -r library; do
  for path in "$library" "$(realpath "$library")"; do
    printf '%s\n' "$path" "/usr$path" "${path#/usr}"
  done
done | sort -u | xargs dpkg-query --search 2>/dev/null | sed 's/:.*//' | sort -u || true
