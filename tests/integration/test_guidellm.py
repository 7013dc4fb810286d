"""GuideLLM completes a run, and its report says what the server did."""

import json
import os
import subprocess
import sys

import harness
import pytest

REQUESTS = 12
OUTPUT_TOKENS = 16


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_run_completes(split, tiny, tmp_path, path):
    report_file = tmp_path / "report.json"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "USE_TORCH": "0",  # see stand_ins/torch
        "PYTHONPATH": str(harness.ROOT / "tests/integration/stand_ins"),
    }
    command = [
        sys.executable, "-m", "guidellm", "run",
        "--backend",
        f"kind=openai_http,target={split.url},model={split.model_name},request_format={path}",
        "--tokenizer", f"kind=huggingface_auto,model={tiny}",
        "--data", f"kind=synthetic_text,prompt_tokens=64,output_tokens={OUTPUT_TOKENS}",
        "--profile", "kind=concurrent,streams=4",
        "--constraint", f"kind=max_requests,count={REQUESTS}",
        "--output", f"kind=json,path={report_file}",
        "--disable-console",
    ]  # fmt: skip
    before = split.metrics().sum("vllm:request_success_total")
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120 * harness.PATIENCE
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]

    [benchmark] = json.loads(report_file.read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    assert split.metrics().sum("vllm:request_success_total") - before == REQUESTS
    # At the end of a run GuideLLM sometimes loses what one of its processes reports.
    assert metrics["request_totals"]["successful"] in (REQUESTS, REQUESTS - 1)
    assert metrics["request_totals"]["errored"] == 0
    assert metrics["request_totals"]["incomplete"] == 0
    assert metrics["output_token_count"]["successful"]["mean"] == OUTPUT_TOKENS
    assert metrics["prompt_token_count"]["successful"]["mean"] >= 60
    first = metrics["time_to_first_token_ms"]["successful"]["median"]
    gap = metrics["inter_token_latency_ms"]["successful"]["median"]
    assert 0 < first < 10_000 * harness.PATIENCE
    assert 0 < gap < 1_000 * harness.PATIENCE
