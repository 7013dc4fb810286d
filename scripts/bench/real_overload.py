"""Three times what the cluster serves in time, for minutes, of clients that come again."""

from bench import emulated, open_loop
from bench.emulated import Placing
from bench.real_cell import CHAT, Context, Measured, Part, measure, ms, percent, say
from bench.real_placing import EDGES

SETUP = emulated.SPLIT
PEAK_AT = (1.0, 1.5, 2.0)  # times the edge
OVERLOAD = 3.0
TRIES = 3
KEPT, OF_PEAK = 0.95, 0.9  # at least


def run(args, context: Context) -> Part:
    seconds = args.seconds or (20 if args.quick else 300)
    peak_seconds = min(seconds, 15 if args.quick else 40)
    edge = EDGES[SETUP.name]
    rows = []
    for times in PEAK_AT:
        found = one(context, args.seed, times * edge, peak_seconds, tries=1)
        rows.append({"rate": times * edge, "tries_each": 1} | found.of(0, peak_seconds))
        told(rows[-1])
    found = one(context, args.seed, OVERLOAD * edge, seconds, TRIES)
    storm = {"rate": OVERLOAD * edge, "tries_each": TRIES} | found.of(0, seconds)
    told(storm)
    of_peak = storm["goodput"] / max(row["goodput"] for row in rows)
    rows.append(storm)
    failed = storm["kept"] < KEPT or of_peak < OF_PEAK or storm["failed"] > 0
    return Part(text(rows, storm, of_peak, seconds, found), rows, failed)


def one(context: Context, seed: int, rate: float, seconds: float, tries: int) -> Measured:
    requests = open_loop.draw(CHAT, rate, seconds, seed)
    return measure(context, SETUP, Placing(), requests, seed, tries=tries)


def told(row: dict) -> None:
    say(f"{row['rate']:g}/s: goodput {row['goodput']:.1f}, kept {percent(row['kept'])}, "
        f"{row['tries']} tries of {row['requests']}, busy {percent(row['busy'], 0)}")  # fmt: skip


def text(rows: list[dict], storm: dict, of_peak: float, seconds: float, found: Measured) -> str:
    edge = EDGES[SETUP.name]
    out = [
        "## Overload, and clients that come again",
        "",
        f"{SETUP.name} workers, `goodput` with admission. At {OVERLOAD:g} times {edge:g}/s, for "
        f"{seconds:g} s, a client that is refused with 503 waits as long as `Retry-After` says and asks "
        f"again, {TRIES} times in all. A request that is asked again is the same request: it counts "
        "once, and its TTFT is from its last try; \"waited\" is from its first one. The rates before are "
        "without retries; the highest goodput among them is the peak.",
        "",
        "| requests/s | tries/s | goodput | kept | refused at last | failed | TTFT p50, p99 | waited p50, p99 "
        "| TPOT p50, p99 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        tries = row["tries"] / row["requests"] * row["rate"]
        out.append(
            f"| {row['rate']:g} | {tries:.0f} | {row['goodput']:.1f} | {percent(row['kept'])} "
            f"| {percent(row['refused'] / row['requests'], 0)} | {row['failed']} "
            f"| {ms(row['ttft_p50'])}, {ms(row['ttft_p99'])} ms "
            f"| {ms(row['waited_p50'])}, {ms(row['waited_p99'])} ms "
            f"| {ms(row['tpot_p50'])}, {ms(row['tpot_p99'])} ms |"
        )
    out += [
        "",
        f"Kept: {percent(storm['kept'])} (at least {percent(KEPT, 0)} is wanted); goodput of its peak: "
        f"{percent(of_peak)} (at least {percent(OF_PEAK, 0)}). Late: {storm['late_ttft']} by TTFT, "
        f"{storm['late_tpot']} by TPOT, of {storm['accepted']} accepted. {by_try(found)}",
        "",
        "| second | goodput | kept |",
        "|---|---|---|",
    ]  # fmt: skip
    step = seconds / 5
    for i in range(5):
        part = found.of(i * step, step)
        out.append(f"| {i * step:.0f} to {(i + 1) * step:.0f} | {part['goodput']:.1f} "
                   f"| {percent(part['kept'])} |")  # fmt: skip
    return "\n".join(out) + "\n"


def by_try(found: Measured) -> str:
    counts = [
        sum(o.tries == n and o.status == 200 for o in found.outcomes) for n in range(1, TRIES + 1)
    ]
    whole = len(found.outcomes)
    shares = ", ".join(percent(count / whole) for count in counts)
    return f"Accepted at the first, second and third try: {shares} of the requests."
