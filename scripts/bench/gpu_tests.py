"""What a GoogleTest program says of its tests, read from its output: one that fell has written
nothing else."""

import dataclasses
import re

_LINE = re.compile(r"^\[ *(RUN|OK|FAILED|SKIPPED) *\] ([\w/]+\.[\w/]+)", re.M)


class Seen:
    """Over several runs of one program, each of what the earlier ones did not come to."""

    def __init__(self):
        self.begun: set[str] = set()
        self.ends: dict[str, str] = {}
        self.fell: list[str] = []
        self.why_not = ""

    def read(self, text: str) -> None:
        for word, name in _LINE.findall(text):
            if word == "RUN":
                self.begun.add(name)
            elif self.ends.get(name) != "FAILED":
                self.ends[name] = word
        if reason := re.search(r"not tested, .*", text):
            self.why_not = reason[0].strip()

    @staticmethod
    def ended(text: str) -> bool:
        """Whether the program came to its end, whatever its tests said."""
        return "[  PASSED  ]" in text

    def note_fall(self) -> bool:
        """Takes the test in which the program fell or hung; False if it was in none."""
        open_tests = self.begun - set(self.ends) - set(self.fell)
        self.fell += sorted(open_tests)
        return bool(open_tests)

    def of(self, word: str) -> list[str]:
        return [name for name, end in self.ends.items() if end == word]

    def ok(self, status: int | None) -> bool | None:
        if self.begun and len(self.of("SKIPPED")) == len(self.begun):
            return None
        return status == 0 and bool(self.of("OK")) and not self.of("FAILED") and not self.fell

    def line(self, last: str) -> str:
        if not self.begun:
            return last
        skipped, failed = self.of("SKIPPED"), self.of("FAILED")
        if len(skipped) == len(self.begun):
            return self.why_not or "all tests were skipped"
        line = f"{len(self.of('OK'))} of {len(self.begun)} tests passed"
        if skipped:
            line += f", {len(skipped)} skipped"
        for what, names in (("failed", failed), ("fell or hung in", self.fell)):
            if names:
                line += f"; {what}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        return line


@dataclasses.dataclass
class Sanitized:
    ok: bool
    line: str


# "Error: Race reported between Read access at NAME+0x10 in FILE:12" and "and Write access at NAME".
_ACCESS = re.compile(r"^=+ +.*\b(?:Read|Write) access at (.+?)\+0x", re.M)
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: *(.*)")
# NVIDIA's own kernels, of cuBLASLt.
_LIBRARY = re.compile(r"nvjet_|cutlass|cublas")


def sanitizer_verdict(text: str) -> Sanitized:
    """What compute-sanitizer found. Races within cuBLASLt's own kernels are told apart: they
    synchronise by means that racecheck does not know, and are not ours to mend."""
    summaries = _SUMMARY.findall(text)
    if not summaries:
        return Sanitized(False, "no summary")
    said = summaries[-1].strip()
    if re.match(r"0 (errors|hazards)", said):
        return Sanitized(True, said)
    kernels = _ACCESS.findall(text)
    theirs = sorted({name for name in kernels if _LIBRARY.search(name)})
    if not kernels or len(theirs) < len(set(kernels)):
        return Sanitized(False, said)
    return Sanitized(
        True, f"0 hazards in our kernels; in {len(theirs)} of cuBLASLt's ({theirs[0]} ...): {said}"
    )
