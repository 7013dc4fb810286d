"""The pure parts of the benchmarks: what is made of times, and how scripts share a page."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench import cluster, gaps, handover_report, load, page  # noqa: E402


def stream(counts: list[int], arrivals: list[float]) -> load.Request:
    return load.Request(0.0, arrivals, counts[-1], counts)


def test_gaps_are_between_tokens_that_follow_each_other():
    # The third came with the fourth: its own time is unknown.
    request = stream([1, 2, 4, 5, 6], [1.0, 3.0, 4.0, 4.5, 5.5])
    assert gaps.token_gaps(request) == {1: 2.0, 5: 1.0}
    assert gaps.gaps_between([request, request], 3.0, 6.0) == [1.0, 1.0]


def test_the_second_gap_stands_beside_a_step():
    request = stream([1, 2, 3, 4, 5], [1.0, 3.0, 4.0, 5.0, 9.0])
    assert gaps.second_gap(request) == (2.0, 1.0)


@pytest.mark.parametrize("counts", [[1, 3, 4, 5, 6], [2, 3, 4, 5, 6], [1, 2, 3, 4]])
def test_without_the_second_token_or_a_step_there_is_no_second_gap(counts):
    assert gaps.second_gap(stream(counts, [float(n) for n in range(len(counts))])) is None


def test_percentiles():
    values = [float(n) for n in range(100, 0, -1)]
    assert gaps.percentile(values, 0.5) == 51
    assert gaps.percentile(values, 0.99) == 100
    assert gaps.percentile([7.0], 0.99) == 7


@pytest.mark.parametrize(("count", "low", "high"), [(4, 1, 4), (6, 1, 6), (30, 10, 21), (9, 2, 8)])
def test_where_a_median_lies(count, low, high):
    """The ranks of the tables of the sign test."""
    found = gaps.median_of([float(n) for n in range(count, 0, -1)])
    assert found == {"median": (count + 1) / 2, "low": low, "high": high}


FITS = """\
sysv: 8192 tokens, 30 layers of 12 KiB a block, 188.7 MB, 32 runs, 30 rounds
 a layer of a block at a time: time = a + b * bytes, least absolute deviations, 300 of each
  240 descriptors a hand-off at most, bound 240
  raw UCX gets                 a     11 us, 1/b  20.00 GB/s,  100.0 % of raw
  hand-off, digests off        a    165 us, 1/b  19.00 GB/s,   95.0 % of raw
  hand-off, digests checked    a     -2 us, 1/b  18.00 GB/s,   90.0 % of raw
 whole blocks: time = a + b * bytes, least absolute deviations, 300 of each
  64 descriptors a hand-off at most, bound 32
  raw UCX gets                 a     29 us, 1/b  10.00 GB/s,  100.0 % of raw
  hand-off, digests off        a    329 us, 1/b   5.00 GB/s,   50.0 % of raw
"""


def test_fits_are_read():
    fits = gaps.read_fits(FITS)
    assert [(fit["how"], fit["name"], fit["points"]) for fit in fits] == [
        ("a layer of a block at a time", "hand-off, digests off", 300),
        ("a layer of a block at a time", "hand-off, digests checked", 300),
        ("whole blocks", "hand-off, digests off", 300),
    ]
    assert [round(fit["slope"], 3) for fit in fits] == [0.95, 0.9, 0.5]
    assert [fit["more_us"] for fit in fits] == [154, -13, 300]
    assert [(fit["descriptors"], fit["bound"]) for fit in fits] == [
        (240, 240),
        (240, 240),
        (64, 32),
    ]


def test_a_fit_s_row_says_what_is_met():
    rows = [handover_report.wire_row({"transport": "shm"} | fit) for fit in gaps.read_fits(FITS)]
    assert [row.count("missed") for row in rows] == [0, 0, 3]
    assert [row.count("met") for row in rows] == [3, 3, 0]


def test_means_between_two_scrapes():
    before = {'s_sum{stage="a"}': 1.0, 's_count{stage="a"}': 2.0, 's_sum{stage="b"}': 9.0}
    after = {'s_sum{stage="a"}': 4.0, 's_count{stage="a"}': 4.0, 's_sum{stage="b"}': 9.0}
    assert cluster.mean_between(before, after, "s", 'stage="a"') == 1.5
    assert cluster.mean_between(before, after, "s", 'stage="b"') is None
    assert cluster.growth(before, after, "s_count") == 2.0


def test_each_script_replaces_its_own_part_of_a_page():
    first = page.with_part("# Page\n\nText.\n", "one", "One.\n")
    assert first.startswith("# Page\n\nText.\n\n<!-- begin one -->\nOne.\n")
    both = page.with_part(first, "two", "Two.")
    again = page.with_part(both, "one", "Another one.")
    assert "Two." in again and "Another one." in again and "\nOne." not in again
    assert page.with_part(again, "one", "One.") == both


def test_a_page_written_anew_keeps_the_parts_of_others():
    before = page.with_part("# Page\n\nOld.\n", "one", "One.")
    after = page.with_parts_of(before, "# Page\n\nNew.\n")
    assert "Old." not in after
    assert after == page.with_part("# Page\n\nNew.\n", "one", "One.")
    assert page.with_parts_of("# Page\n", "New.\n") == "New.\n"
