"""docs/metrics.md and docs/operations.md name what the code has: metrics, log lines, codes."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
METRICS_PAGE = (ROOT / "docs/metrics.md").read_text()
FOLDERS = ["common", "kvtransfer", "prefill", "decode", "router", "worker", "cli"]
SOURCES = {
    path: path.read_text()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.c[cu]"))
}

_METRIC = r"(?:vllm:|baton_|process_)[a-z0-9_]+"
_LITERAL = r'"((?:[^"\\]|\\.)*)"'


def metrics_of_the_code() -> set[str]:
    found = set()
    for text in SOURCES.values():
        if re.search(r"(counter|gauge|histogram)\(", text):
            found |= set(re.findall(rf'"({_METRIC})"', text))
    return found


def log_lines_of_the_code() -> set[str]:
    """Each warning and error, with … for values."""
    found = set()
    for text in SOURCES.values():
        for shown in re.findall(rf"LOG_(?:WARN|ERROR)\(\s*((?:{_LITERAL}\s*)+)", text):
            line = "".join(re.findall(_LITERAL, shown[0]))
            found.add(re.sub(r"\{[^}]*\}", "…", line))
    return found


def log_lines_of_the_page() -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", PAGE.split("## Log")[1], re.M))


def test_every_metric_is_on_the_page_and_no_other():
    code = metrics_of_the_code()
    assert len(code) > 30
    assert set(re.findall(rf"`({_METRIC})`", METRICS_PAGE)) == code
    assert set(re.findall(rf"`({_METRIC})`", PAGE)) <= code


def test_every_warning_and_error_is_on_the_page_and_no_other():
    code = log_lines_of_the_code()
    assert len(code) > 20
    assert log_lines_of_the_page() == code


def test_every_status_and_code_of_the_api_is_on_the_page():
    statuses = re.findall(r"k\w+ = (\d{3})", (ROOT / "router/http/status.h").read_text())
    assert {s for s in statuses if s not in PAGE} <= {"200", "304"}  # which are no errors
    codes = set(re.findall(r'return "([a-z_]+)";', SOURCES[ROOT / "common/base/result.cc"]))
    for path, text in SOURCES.items():
        if path.is_relative_to(ROOT / "router"):
            codes |= set(re.findall(r'\.code = "([a-z_]+)"', text))
    assert len(codes) > 10
    # The API calls the one overloaded; the other is no error.
    assert {code for code in codes if f"`{code}`" not in PAGE} == {"resource_exhausted", "unknown"}


def test_reasons_of_the_router_are_on_the_page():
    api = SOURCES[ROOT / "router/service/api.cc"]
    labels = api[api.index("refusal_label") : api.index("}  // namespace")]
    for reason in re.findall(r'"([a-z_]+)"', labels):
        assert re.search(rf"baton_router_refused_total.*\b{reason}\b", METRICS_PAGE), reason
    metrics = SOURCES[ROOT / "router/service/router_metrics.cc"]
    stages = re.findall(r'stage\(m, model, "(\w+)"\)', metrics)
    assert stages
    for stage in stages:
        assert re.search(rf"baton_request_stage_seconds.*\b{stage}\b", METRICS_PAGE), stage
