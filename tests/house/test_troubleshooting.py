"""docs/troubleshooting.md quotes the code: each sentence that it shows is one of the program's."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
FOLDERS = ["common", "kvtransfer", "prefill", "decode", "router", "worker", "cli"]


def text_of_the_code() -> str:
    """All literals of a source, neighbours joined, with … for values."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.c[cu]")):
            joined = re.sub(r'"\s*\n\s*"', "", path.read_text())
            found += re.findall(r'"((?:[^"\\\n]|\\.)*)"', joined)
    return "\n".join(re.sub(r"\{[^{}]*\}", "…", literal) for literal in found)


def quoted() -> list[str]:
    """Sentences: what has a blank in it and is no command of a shell."""
    cells = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\|[^|]*\|", PAGE, re.M)))
    return [cell for cell in cells if " " in cell.strip()]


def test_sentences_of_the_page_are_the_programs():
    code, sentences = text_of_the_code(), quoted()
    assert len(sentences) > 20
    assert [s for s in sentences if s not in code] == []
