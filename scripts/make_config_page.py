#!/usr/bin/env python3
"""Writes docs/configuration.md from what `baton COMMAND --help` says; a test checks it.

scripts/make_config_page.py [BATON]
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/configuration.md"
COMMANDS = {
    "up": "A whole cluster on one machine, as child processes. One that dies is started again.",
    "router": "The HTTP front, placing requests on workers.",
    "worker": "One worker: a model, its KV cache, and a role.",
    "sim": "The cluster on a virtual clock: how fast it is, and what goes wrong in it (docs/simulator.md).",
    "plan": "Which placement serves a traffic best (docs/planning.md).",
    "doctor": "Whether machine, model, network and configuration are fit (docs/doctor.md).",
}
LEFT_OUT = {"ready_fd"}  # between `baton up` and its children

HEAD = """\
# Configuration

Every option of a command is a flag (`--max-context 4096`), an environment variable
(`BATON_MAX_CONTEXT=4096`) and a key of a YAML file (`max_context: 4096`, given by `--config FILE`).
The flag wins over the variable, the variable over the file, the file over the default. A key that
the command does not know is refused, and so is one that is there twice or has no value. A list is
`--workers a:1 b:2` as a flag, `workers: [a:1, b:2]` in the file, and one word with blanks or commas
between in a variable: `BATON_WORKERS="a:1 b:2"`.
`--print-config` prints what is in force, as a file that
`--config` takes; `--help` prints the defaults.

A router and two workers on three machines:

```yaml
# router.yaml: baton router --config router.yaml
model: /models/SmolLM2-135M-Instruct.Q4_1.gguf
listen: 0.0.0.0:8000
workers: [10.0.0.1:9000, 10.0.0.2:9000]
api_key_file: /etc/baton/keys
secret_file: /etc/baton/secret
```

```yaml
# prefill.yaml, and the same with role: decode: baton worker --config prefill.yaml
role: prefill
name: prefill-0
model: /models/SmolLM2-135M-Instruct.Q4_1.gguf
listen: 10.0.0.1:9000
metrics_listen: 10.0.0.1:9100
trusted_network: true
secret_file: /etc/baton/secret
threads: 16
kv_gib: 8
```

`workers: ["dns:pool.example.com:9000"]` is a worker at each address that the name has, as they come and go;
`k8s:baton/pool:rpc` is one at each endpoint that the Kubernetes API says the Service has
([kubernetes.md](kubernetes.md#workers-from-the-kubernetes-api)).
All workers of one model name have one tokenizer; workers pair only if their weights, their
KV layout and their arithmetic agree. SIGTERM and SIGINT drain: nothing new is taken, what runs may
finish, for as long as `drain_seconds` allows; a second signal ends at once.

This page is written by `scripts/make_config_page.py`.
"""


def run(baton: str, *args: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("BATON_")}
    command = [baton, *args]
    return subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout


def section(baton: str, command: str, about: str) -> str:
    shown = run(baton, command, "--help")
    rows = []
    for line in run(baton, command, "--print-config").splitlines():
        key, default = line.split(": ", 1)
        if key in LEFT_OUT:
            continue
        variable = f"BATON_{key.upper()}"
        [meaning] = re.findall(rf"\(Env:{variable}\)\s+(.*?)\s*(?=\n\s+--|\Z)", shown, re.S)
        cells = [f"`--{key.replace('_', '-')}`", f"`{variable}`", default.strip('"'), meaning]
        rows.append(f"| {' | '.join(cells)} |")
    table = "\n".join(["| flag | variable | default | |", "|---|---|---|---|", *rows])
    return f"\n## `baton {command}`\n\n{about}\n\n{table}\n"


def page(baton: str) -> str:
    return HEAD + "".join(section(baton, *item) for item in COMMANDS.items())


if __name__ == "__main__":
    built = str(ROOT / "build/release/bin/baton")
    PAGE.write_text(page(sys.argv[1] if len(sys.argv) > 1 else built))
