"""The documentation names only what exists, and links lead somewhere."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BATON_TEST_BIN", ROOT / "build/release/bin/baton"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ["up", "router", "worker", "sim", "plan", "doctor"]
# Flags of other programs that the pages show.
OTHERS = set("--once --test-dir --build --preset --parallel --shm-size".split()) | set(
    "--build-arg --dry-run --from-file --target".split()
)


def text_of(page: pathlib.Path) -> str:
    return page.read_text()


def named(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_scripts_that_are_named_exist(page):
    scripts = set(re.findall(r"\bscripts/[\w./-]*\w(?![\w*])", text_of(page)))
    assert [name for name in scripts if not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    if not BIN.exists():
        pytest.fail(f"{BIN} is not there; run scripts/build.sh")
    return {
        command: subprocess.run([BIN, command, "--help"], capture_output=True, text=True).stdout
        for command in COMMANDS
    }


def flags_of(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z0-9-]*", text))


def flags_of_scripts() -> set[str]:
    return set().union(*(flags_of(p.read_text()) for p in (ROOT / "scripts").rglob("*.*") if
                         p.suffix in (".sh", ".py")))  # fmt: skip


def flags_of_test_programs() -> set[str]:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("*.cc")]
    programs = [text for text in sources if "<CLI/CLI.hpp>" in text]
    return set(re.findall(r'add_\w+\("(--[a-z][a-z0-9-]*)"', "".join(programs)))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_flags_that_are_shown_exist(page, help_texts):
    known = (
        OTHERS
        | flags_of_scripts()
        | flags_of_test_programs()
        | flags_of("".join(help_texts.values()))
    )
    assert flags_of(text_of(page)) - known == set()


def test_every_type_of_weights_is_on_the_page_of_formats():
    header = text_of(ROOT / "common/formats/storage_type.h")
    types = re.findall(r"^  k(\w+),$", header, re.M)
    assert len(types) > 5
    page = text_of(ROOT / "docs/formats.md")
    assert [name for name in types if not re.search(rf"\b{name}\b", page)] == []


def test_the_readme_names_every_family():
    sources = [text_of(ROOT / f"common/formats/model_config_{kind}.cc") for kind in ("hf", "gguf")]
    lists = [re.search(r"kArchitectures = \{(.*?)\}", source)[1] for source in sources]
    readme = text_of(ROOT / "README.md").lower()
    assert [name for name in re.findall(r'"(\w+)"', "".join(lists)) if name not in readme] == []


def test_the_configuration_page_is_what_the_command_says(help_texts):
    """scripts/make_config_page.py writes it."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import make_config_page

    assert make_config_page.PAGE.read_text() == make_config_page.page(str(BIN))
    assert set(make_config_page.COMMANDS) == set(COMMANDS)
