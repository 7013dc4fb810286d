#!/usr/bin/env python3
"""Writes the tables of docs/kubernetes.md from the rendered manifests; a test checks them.

scripts/make_kubernetes_page.py       needs kubectl ($BATON_KUBECTL) and Python's yaml
"""

import pathlib

from bench import page
from manifests import grants

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/kubernetes.md"
PART = "grants"


def current() -> str:
    return page.with_part(PAGE.read_text(), PART, grants.text())


if __name__ == "__main__":
    PAGE.write_text(current())
