#!/usr/bin/env bash
# Makes build/venv with what the Python tests need, anew only when its list changed; prints its
# interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=tests/integration/requirements.txt
venv=build/venv
want=$(python3 -c 'import sys; print(sys.version)' | cat - "$requirements" | sha256sum)

if [ "$(cat "$venv/.made_from" 2>/dev/null)" != "$want" ]; then
  echo "test_venv: making $venv from $requirements" >&2
  rm -rf "$venv"
  python3 -m venv "$venv"
  # The list is complete, so pip need not resolve (see its head for what is left out).
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps \
    -r "$requirements" >&2
  echo "$want" >"$venv/.made_from"
fi
echo "$PWD/$venv/bin/python"
