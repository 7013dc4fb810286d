"""Latency profiles that are derived (scripts/bench/derive_profile.py), and those that were published."""

import pathlib
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench import derive_profile, published_costs  # noqa: E402
from bench.derive_profile import A100, H200, LLAMA_8B, OPT_13B, OPT_66B  # noqa: E402


def test_the_rule_gives_back_what_it_was_taken_from():
    measured = yaml.safe_load((ROOT / "deploy/profiles/h200-llama3-8b.yaml").read_text())
    again = derive_profile.step_us(LLAMA_8B, H200, 1, derive_profile.measured_shares())
    for key, value in measured["step"].items():
        # What a draw took is not among the shares: there it is a guess, too.
        assert key == "output_us" or again[key] == pytest.approx(value, rel=1e-9), key
    assert LLAMA_8B.kv_bytes_per_token() == measured["kv_bytes_per_token"]


def test_no_share_is_more_than_all():
    for value in vars(derive_profile.measured_shares()).values():
        assert 0.3 < value < 1


@pytest.mark.parametrize(
    "model, weights, kv", [(OPT_13B, 12.85e9, 819_200), (OPT_66B, 65.7e9, 2_359_296)]
)
def test_models_have_their_size(model, weights, kv):
    assert model.weights_stored() == pytest.approx(weights, rel=1e-3)
    assert model.kv_bytes_per_token() == kv


def test_tensor_parallelism_divides_work_and_adds_all_reduces():
    reached = derive_profile.measured_shares()
    one, two = (derive_profile.step_us(OPT_13B, A100, tp, reached) for tp in (1, 2))
    reduces = 2 * OPT_13B.layers
    assert two["fixed_us"] == pytest.approx(one["fixed_us"] / 2 + reduces * 20)
    # Half of 2 x 5120 x 2 bytes, twice, at 230 GB/s.
    assert two["row_us"] == pytest.approx(one["row_us"] / 2 + reduces * 10_240 / 230e3)
    for key in ["row_beyond_us", "context_token_us", "attended_pair_us", "output_us"]:
        assert two[key] == pytest.approx(one[key] / 2)
    assert two["ridge_rows"] == one["ridge_rows"]


def test_slower_is_all_of_a_step_and_not_the_link():
    one, slow = (derive_profile.profile(OPT_66B, A100, 4, slower) for slower in (1, 1.2))
    for key, value in one["step"].items():
        factor = 1 if key == "ridge_rows" else 1.2
        assert slow["step"][key] == pytest.approx(value * factor, rel=1e-3), key
    assert slow["link"] == one["link"]


def test_what_fits_beside_the_weights():
    assert derive_profile.kv_tokens(OPT_13B, A100, 1) == pytest.approx(56_500, rel=0.01)
    assert derive_profile.kv_tokens(OPT_66B, A100, 1) == 0


@pytest.mark.parametrize("model, tp", derive_profile.DERIVED)
def test_the_files_are_what_the_rule_gives(model, tp):
    """scripts/bench/derive_profile.py writes them."""
    name = derive_profile.profile(model, A100, tp)["name"]
    path = ROOT / f"deploy/profiles/{name}.yaml"
    assert path.read_text() == derive_profile.text_of(model, A100, tp)


@pytest.mark.parametrize("key", [k for k in published_costs.PUBLISHED if k[0] == "distserve"])
def test_the_rule_is_near_what_was_measured_elsewhere(key):
    _, name, tp = key
    model = {m.name: m for m in (OPT_13B, OPT_66B)}[name]
    us = derive_profile.step_us(model, A100, tp, derive_profile.measured_shares())
    of = published_costs.PUBLISHED[key]
    for tokens in (756, 1738):
        assert derive_profile.prompt_s(us, tokens) == pytest.approx(of.prompt_s(tokens), rel=0.2)
    for sequences in (1, 32):
        published = of.decode_s(sequences, 800 * sequences)
        assert derive_profile.decode_s(us, sequences, 800 * sequences) == pytest.approx(
            published, rel=0.3
        )


@pytest.mark.parametrize("key", published_costs.PUBLISHED)
def test_published_times_become_profiles(key):
    of = published_costs.PUBLISHED[key]
    prompt, decode = published_costs.prompt_costs(of), published_costs.decode_costs(of)
    for tokens in (100, 756, 2000):
        assert derive_profile.prompt_s(prompt, tokens) == pytest.approx(
            of.prompt_s(tokens), rel=1e-3
        )
    for sequences in (1, 40):
        context = 900 * sequences
        assert derive_profile.decode_s(decode, sequences, context) == pytest.approx(
            of.decode_s(sequences, context), rel=1e-9
        )
