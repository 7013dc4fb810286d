"""What scripts/gpu_check believes of compute-sanitizer's words, and what it makes of figures."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from bench import gpu_report, gpu_tests  # noqa: E402

LIBRARY = "nvjet_sm90_tst_64x8_64x16_2x4_h_bz_TNT"


def race(first: str, second: str) -> str:
    return (
        f"========= Error: Race reported between Read access at {first}+0xb00\n"
        f"=========     and Write access at {second}+0x2820 [160 hazards]\n"
        "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
    )


def test_races_of_a_library_are_told_apart():
    assert gpu_tests.sanitizer_verdict(race(LIBRARY, LIBRARY)).ok
    ours = "void baton::ops::cuda::attend(Args)"
    assert not gpu_tests.sanitizer_verdict(race(ours, ours)).ok
    assert not gpu_tests.sanitizer_verdict(race(LIBRARY, ours)).ok


def test_no_summary_and_other_errors_are_no_success():
    assert not gpu_tests.sanitizer_verdict("[  PASSED  ] 35 tests.").ok
    assert not gpu_tests.sanitizer_verdict("========= ERROR SUMMARY: 3 errors").ok
    assert gpu_tests.sanitizer_verdict("========= ERROR SUMMARY: 0 errors").ok


def test_what_both_types_measured_stands_side_by_side():
    def spread(seconds: float) -> dict:
        return {"least": seconds, "median": seconds, "most": seconds}

    product = {"name": "qkv", "m": 8, "seconds": spread(20e-6)}
    step = {"batch": 64, "context": 1024, "step": spread(4e-3)}
    bf16 = {"products": [product, product | {"m": 64}], "decode": [step]}
    f16 = {
        "products": [product | {"seconds": spread(21e-6)}],
        "decode": [step | {"step": spread(4e-3)}],
    }
    rows = [line for line in gpu_report.f16(bf16, f16).splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| qkv, 8 rows | 20.0 | 21.0 | 1.05 |",
        "| step of 64 × 1024 tokens | 4000.0 | 4000.0 | 1.00 |",
    ]
    assert gpu_report.f16(bf16, {}) == ""


def test_what_looking_adds_is_no_gap():
    trace = {"traced_s": 5.5e-3, "idle": 0.1}
    assert gpu_report.gaps(trace, 5.2e-3) == ["10.0 %", "**4.8 %**"]
    assert gpu_report.gaps(trace, 5.5e-3) == ["10.0 %", "**10.0 %**"]
    assert gpu_report.gaps(trace, 4.0e-3) == ["10.0 %", "**0.0 %**"]
