"""Pure parts of scripts/bench_handover: gaps between tokens, medians and what they are worth."""

import math
import re
import statistics

from bench import load

# A line of `transfer_bench fit`: "  raw UCX gets   a   11 us, 1/b  13.84 GB/s,  100.0 % of raw".
FIT = re.compile(r"^ +(?P<name>\w.*?) +a +(?P<us>-?\d+) us, 1/b +(?P<gbs>-?[\d.]+) GB/s,", re.M)
FIT_TITLE = re.compile(
    r"^ (?P<title>\w.*?): time = a \+ b \* bytes.*?(?P<points>\d+) of each$", re.M
)

DESCRIPTORS = re.compile(
    r"^ +(?P<most>\d+) descriptors a hand-off at most, bound (?P<bound>\d+)$", re.M
)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def token_times(request: load.Request) -> dict[int, float]:
    """When the first, second, ... token came; only of those that came with text of their own."""
    times = {}
    before = 0
    for count, arrival in zip(request.counts, request.arrivals):
        if count == before + 1:
            times[count] = arrival
        before = count
    return times


def token_gaps(request: load.Request) -> dict[int, float]:
    """Seconds from token n to token n + 1, by n; without those where one of the two had no text."""
    times = token_times(request)
    return {n: times[n + 1] - times[n] for n in times if n + 1 in times}


def second_gap(request: load.Request) -> tuple[float, float] | None:
    """From the first token to the second, and one step: the median of the gaps behind it."""
    gaps = token_gaps(request)
    later = [gap for n, gap in gaps.items() if n > 1]
    if 1 not in gaps or len(later) < 3:
        return None
    return gaps[1], statistics.median(later)


def gaps_between(requests: list[load.Request], begin: float, end: float) -> list[float]:
    """Of all streams, those that lie within."""
    return [
        times[n + 1] - times[n]
        for times in map(token_times, requests)
        for n in times
        if n + 1 in times and times[n] >= begin and times[n + 1] <= end
    ]


def median_of(values: list[float]) -> dict[str, float]:
    """The median and where it lies by 95 %, whatever the distribution: between two ranks that a
    fair coin, thrown once a value, leaves out one time in twenty at most."""
    ordered = sorted(values)
    n = len(ordered)
    rank, outside = 0, 0.0
    while rank < n // 2:
        outside += 2 * math.comb(n, rank) / 2**n
        if outside > 0.05:
            break
        rank += 1
    low = max(rank - 1, 0)
    return {"median": statistics.median(ordered), "low": ordered[low], "high": ordered[-1 - low]}


def read_fits(text: str) -> list[dict]:
    """What `transfer_bench fit` printed, with the ratios that count."""
    found = []
    titles = list(FIT_TITLE.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    for title, end in zip(titles, ends):
        lines = {
            line["name"]: {"us": float(line["us"]), "gb_s": float(line["gbs"])}
            for line in FIT.finditer(text, title.end(), end)
        }
        raw = lines.pop("raw UCX gets")
        descriptors = DESCRIPTORS.search(text, title.end(), end)
        for name, line in lines.items():
            found.append(
                {
                    "how": title["title"],
                    "points": int(title["points"]),
                    "name": name,
                    "raw": raw,
                    "line": line,
                    "slope": line["gb_s"] / raw["gb_s"],
                    "more_us": line["us"] - raw["us"],
                    "descriptors": int(descriptors["most"]),
                    "bound": int(descriptors["bound"]),
                }
            )
    return found
