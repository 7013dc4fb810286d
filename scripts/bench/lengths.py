"""Lengths of prompts and answers by their means, as DistServe prepared its data sets for OPT.

OPT has 2048 positions. Of ShareGPT and HumanEval the paper left out what is longer, prompt and answer
together; LongBench's prompts it cut off at a length drawn between 1900 and 2048. Here both are done to
log-normal lengths whose standard deviation is their mean, the scale of which is sought so that what
is left has the paper's means.
"""

import dataclasses
import math
import pathlib
import random

POSITIONS = 2048
CUT = (1900, 2040)  # LongBench's prompts
SIGMA = math.sqrt(math.log(2))  # of the logarithm: standard deviation = mean


@dataclasses.dataclass(frozen=True)
class Means:
    prompt: float
    answer: float
    cut: bool = False  # long prompts are cut off, not left out


def drawn(means: Means, count: int, seed: int = 1) -> list[tuple[int, int]]:
    """Prompts and answers of these means, to within one in a hundred."""
    source = random.Random(seed)
    shapes = [(log_normal(source), log_normal(source), source.uniform(*CUT)) for _ in range(count)]
    prompt, answer = means.prompt, means.answer
    for _ in range(5):  # each moves the other a little
        prompt = sought(lambda s, a=answer: mean_of(fitted(shapes, s, a, means), 0), means.prompt)
        answer = sought(lambda s, p=prompt: mean_of(fitted(shapes, p, s, means), 1), means.answer)
    return fitted(shapes, prompt, answer, means)


def log_normal(source: random.Random) -> float:
    """Of mean 1."""
    return math.exp(source.gauss(0, 1) * SIGMA - SIGMA**2 / 2)


def fitted(shapes, prompt: float, answer: float, means: Means) -> list[tuple[int, int]]:
    out = []
    for x, y, cut in shapes:
        a = max(1, round(answer * y))
        p = max(1, round(min(prompt * x, cut - a) if means.cut else prompt * x))
        if p + a < POSITIONS:
            out.append((p, a))
    return out


def mean_of(pairs: list[tuple[int, int]], which: int) -> float:
    return sum(pair[which] for pair in pairs) / max(1, len(pairs))


def sought(mean, target: float) -> float:
    """The scale at which the mean, which grows with it, is the target."""
    low, high = target / 4, target * 64
    for _ in range(24):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if mean(middle) < target else (low, middle)
    return high


def write(path: pathlib.Path, pairs: list[tuple[int, int]]) -> None:
    """As `baton sim --trace` reads lengths."""
    lines = [f"{prompt},{answer}\n" for prompt, answer in pairs]
    path.write_text("num_prefill_tokens,num_decode_tokens\n" + "".join(lines))
