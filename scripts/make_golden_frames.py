#!/usr/bin/env python3
"""Writes the bytes of the golden frames (tests/net/frames, tests/kvtransfer/frames) behind their text,
by protoc: of the files that are named, or of the newest protocols.

With --proto DIR by the .proto files of another tree, whose root it is: so an older protocol's bytes
are its own. Those of an older protocol never change."""

import argparse
import pathlib
import re
import struct
import subprocess

ROOT = pathlib.Path(__file__).parent.parent
KEPT = {"worker": "tests/net/frames", "handoff": "tests/kvtransfer/frames"}


def message_of(path: pathlib.Path, name: str) -> str:
    if path.name.startswith("worker_"):
        return "Frame"
    return "Hello" if name.startswith("hello") else "Handoff"


def encode(proto: pathlib.Path, path: pathlib.Path, name: str, text: str) -> bytes:
    of = "worker" if path.name.startswith("worker_") else "handoff"
    body = subprocess.run(
        [
            "protoc",
            f"--proto_path={proto}",
            f"--encode=baton.proto.{message_of(path, name)}",
            "--deterministic_output",
            f"common/proto/{of}.proto",
        ],
        input=text.encode(),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return struct.pack("<I", len(body)) + body if of == "worker" else body


def rewrite(path: pathlib.Path, proto: pathlib.Path):
    head, *cases = re.split(r"(?m)^(?=\[)", path.read_text())
    out = head
    for case in cases:
        name = case[1 : case.index("]")]
        text = re.sub(r"(?m)^hex .*\n?", "", case[case.index("]") + 1 :]).strip()
        lines = re.findall(r".{1,100}", encode(proto, path, name, text).hex())
        out += "\n".join([f"[{name}]", text, *(f"hex {line}" for line in lines)]) + "\n\n"
    path.write_text(out.rstrip() + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--proto", type=pathlib.Path, default=ROOT)
    options = parser.parse_args()
    newest = [max((ROOT / folder).glob("*.txt"), key=version_of) for folder in KEPT.values()]
    for path in options.files or newest:
        rewrite(path, options.proto)


def version_of(path: pathlib.Path) -> int:
    return int(path.stem.rpartition("_")[2])


if __name__ == "__main__":
    main()
