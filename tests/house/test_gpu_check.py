"""What scripts/gpu_check believes of compute-sanitizer's words."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from bench import gpu_tests  # noqa: E402

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
