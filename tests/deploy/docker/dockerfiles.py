"""What a Dockerfile says, and what is wrong with it."""

import dataclasses
import pathlib
import re


@dataclasses.dataclass
class Stage:
    base: str  # an image, or the name of a stage
    name: str
    steps: list[tuple[str, str]]  # ("COPY", "a b")


def logical_lines(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def parse(text: str) -> list[Stage]:
    variables: dict[str, str] = {}
    stages: list[Stage] = []
    for line in logical_lines(text):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            for variable, value in variables.items():
                image = image.replace("${" + variable + "}", value)
            stages.append(Stage(image, name, []))
        elif stages:
            stages[-1].steps.append((word, rest))
        elif word == "ARG":
            variable, _, value = rest.partition("=")
            variables[variable] = value
    return stages


def lineage(stages: list[Stage], stage: Stage) -> list[Stage]:
    """This stage and those that it is made from."""
    below = [other for other in stages if other.name == stage.base]
    return [stage, *(lineage(stages, below[0]) if below else [])]


def complaints(text: str, root: pathlib.Path) -> list[str]:
    stages = parse(text)
    names = {stage.name for stage in stages}
    found = []
    for stage in stages:
        if stage.base not in names:
            found += _of_base(stage.base)
        for word, rest in stage.steps:
            found += _of_step(word, rest, root)
    last = lineage(stages, stages[-1])
    steps = [step for stage in last for step in stage.steps[::-1]]
    user = next((rest for word, rest in steps if word == "USER"), "root")
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user):
        found.append(f"runs as {user}: USER is a number other than 0, so that a cluster can tell")
    entry = next((rest for word, rest in steps if word == "ENTRYPOINT"), "")
    if not entry.startswith("["):
        found.append("no ENTRYPOINT without a shell: signals would not arrive")
    if any(word == "COPY" and "--from=" not in rest for word, rest in steps if len(last) < 2):
        found.append("the image that runs is made of what was built, not of sources")
    return found


def _of_base(image: str) -> list[str]:
    tag = image.partition("@")[0].rpartition(":")[2]
    if ":" not in image or not re.search(r"\d+\.\d+", tag):
        return [f"{image} is not pinned to a release"]
    return []


def _of_step(word: str, rest: str, root: pathlib.Path) -> list[str]:
    if word == "ADD":
        return ["ADD fetches and unpacks in silence: COPY"]
    if word in ("ENV", "ARG") and re.search(r"(?i)(secret|token|password|api_?key)", rest):
        return [f"{word} {rest}: it stays in the image's history"]
    if word == "COPY" and "--from=" not in rest:
        sources = [part for part in rest.split()[:-1] if not part.startswith("--")]
        gone = [source for source in sources if not (root / source).exists()]
        whole = [source for source in sources if source in (".", "./")]
        return [f"COPY {source}: is not there" for source in gone] + [
            f"COPY {source}: says nothing of what" for source in whole
        ]
    return _of_run(rest) if word == "RUN" else []


def _of_run(command: str) -> list[str]:
    found = []
    if "apt-get install" in command:
        if "--no-install-recommends" not in command:
            found.append("apt-get without --no-install-recommends")
        if "apt-get update" not in command:
            found.append("apt-get install of lists from an older layer")
        if "rm -rf /var/lib/apt/lists" not in command:
            found.append("apt's lists stay in the image")
    if re.search(r"(curl|wget)[^|]*\|\s*(ba)?sh", command):
        found.append("runs what it fetches")
    if "sudo" in command.split():
        found.append("sudo")
    return found
