"""Who may include whom. The table is the house's order of floors: CONTRIBUTING.md explains it."""

import dataclasses
import pathlib
import re

COMMON = [
    "base", "latency", "proto", "net", "device", "collective", "formats", "text",
    "ops", "kvcache", "model", "engine", "serving",
]  # fmt: skip

# Each module, and the modules right below it. A module may include itself and all that is below,
# directly or through others.
BELOW = {
    "base": [],
    "latency": ["base"],
    "proto": [],
    "net": ["base", "proto"],
    "device": ["base"],
    "collective": ["device"],
    "formats": ["base"],
    "text": ["formats"],
    "ops": ["device"],
    "kvcache": ["device"],
    "model": ["collective", "ops", "kvcache", "formats"],
    "engine": ["model", "latency"],
    "serving": ["base", "proto", "engine"],
    "kvtransfer": ["base", "latency", "device", "kvcache", "proto"],
    "prefill": [*COMMON, "kvtransfer"],
    "decode": [*COMMON, "kvtransfer"],
    "worker": [*COMMON, "kvtransfer", "prefill", "decode"],
    "router": ["base", "latency", "net", "proto", "text"],
    "sim": [*COMMON, "kvtransfer", "prefill", "decode", "worker", "router"],
    "doctor": [*COMMON, "kvtransfer"],
    "cli": [*COMMON, "kvtransfer", "prefill", "decode", "worker", "router", "sim", "doctor"],
}

# Libraries that stay behind the folder that wraps them: a pattern of the include, and where it may
# stand. CUDA and UCX types appear in no header above their folder; of tests, only in those of it.
FENCED = {
    r"(ucp|ucs|uct|ucm)/": r"kvtransfer/.*\.cc",
    r"(cuda|cublas|cudnn|nvrtc|nccl|driver_types|mma\.h).*": r"(common/(device|ops)/cuda|tests/(gpu|ops/cuda))/.*",
    r"gloo/": r"common/collective/.*\.cc",
    r"(oneapi/dnnl|dnnl)": r"common/ops/cpu/.*\.(cc|h)",
    r"boost/beast": r"(common/net/.*\.cc|(router|cli|tests)/.*)",
    r"boost/json": r"((common/(formats|text)|router|cli|tests)/.*|sim/(cluster|plan)/.*\.cc)",
    r"yaml-cpp/": r"((common/(base|latency)|sim/(cluster|plan))/.*\.cc|sim/cluster/yaml_keys\.h|(cli|tests)/.*)",
    r"CLI/": r"(common/base/.*\.cc|(cli|tests)/.*)",
}

SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
# Highway's headers are written in quotes, by its own manner.
_QUOTED_LIBRARY = re.compile(r"hwy/")
_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


@dataclasses.dataclass(frozen=True)
class Violation:
    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Include:
    line: int
    quoted: bool
    path: str


def module_of(path: str) -> str | None:
    """The module that a path from the root belongs to; None for tests and the like."""
    parts = path.split("/")
    name = parts[1] if parts[0] == "common" and len(parts) > 1 else parts[0]
    return name if name in BELOW else None


def may_include(module: str) -> set[str]:
    below = set(BELOW[module])
    return below.union(*(may_include(other) for other in below))


def source_files(root: pathlib.Path) -> dict[str, list[Include]]:
    """Every C++ file of the project, as a path from the root, with what it includes."""
    files = {}
    for top in sorted(root.iterdir()):
        if top.name == "build" or top.name.startswith("."):
            continue
        for path in sorted(top.rglob("*")):
            if path.suffix in SOURCE_SUFFIXES:
                files[str(path.relative_to(root))] = _includes(path)
    return files


def _includes(path: pathlib.Path) -> list[Include]:
    found = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        if match := _INCLUDE.match(text):
            ours = match[1] == '"' and not _QUOTED_LIBRARY.match(match[2])
            found.append(Include(number, ours, match[2]))
    return found


def violations(files: dict[str, list[Include]]) -> list[Violation]:
    found = []
    for file, includes in files.items():
        if module_of(file) is None and not file.startswith("tests/"):
            found.append(Violation(file, 1, "its folder has no place in the table"))
        for include in includes:
            reason = _why_not(file, include, files)
            if reason:
                found.append(Violation(file, include.line, reason))
    return found + _circles(files)


def _why_not(file: str, include: Include, files: dict) -> str | None:
    if not include.quoted:
        return _why_not_library(file, include.path)
    target = module_of(include.path)
    if include.path not in files and target != "proto":
        return f'"{include.path}" is no file of the project, written from its root'
    owner = module_of(file)
    if owner is None or target is None or owner == target:
        return None
    if target not in may_include(owner):
        return f'{owner} may not include {target} ("{include.path}")'
    return None


def _why_not_library(file: str, path: str) -> str | None:
    for pattern, allowed in FENCED.items():
        if re.match(pattern, path) and not re.fullmatch(allowed, file):
            return f"<{path}> belongs only in {allowed}"
    return None


def _circles(files: dict[str, list[Include]]) -> list[Violation]:
    found, done = [], set()

    def visit(file: str, path: list[str]) -> None:
        for include in files.get(file, []):
            if include.path in path:
                ring = " -> ".join([*path[path.index(include.path) :], include.path])
                found.append(Violation(file, include.line, f"a circle: {ring}"))
            elif include.path in files and include.path not in done:
                visit(include.path, [*path, include.path])
        done.add(file)

    for file in files:
        if file not in done:
            visit(file, [file])
    return found


def table_is_in_order() -> bool:
    """Each module stands on ones named before it, so that the table has no circle."""
    seen: set[str] = set()
    for module, below in BELOW.items():
        if not set(below) <= seen:
            return False
        seen.add(module)
    return True


_LIBRARY = re.compile(r"(?:baton_library\(|add_library\(baton_)\s*(\w+)(.*?)\)", re.S)


def target_violations(root: pathlib.Path) -> list[Violation]:
    """The same table, applied to what the CMake targets link."""
    modules, linked = {}, []
    for cmake in sorted(root.rglob("CMakeLists.txt")):
        path = str(cmake.relative_to(root))
        owner = module_of(path)
        if path.startswith("build/") or owner is None:
            continue
        text = cmake.read_text()
        for match in _LIBRARY.finditer(text):
            modules[match[1]] = owner
            line = text.count("\n", 0, match.start()) + 1
            for dependency in re.findall(r"baton::(\w+)", match[2]):
                linked.append((path, line, owner, dependency))
    return [
        Violation(path, line, f"a target of {owner} may not link baton::{dependency}")
        for path, line, owner, dependency in linked
        if modules.get(dependency) not in {owner, *may_include(owner)}
    ]
