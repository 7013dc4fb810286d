"""Latency profiles of models on GPUs that are not here, derived from one that was measured.

The rule, by the terms of common/latency/profile.h. Llama-3-8B on an H200 (deploy/profiles/
h200-llama3-8b.yaml) reached these shares of what the data sheet promises; another model on another
GPU is taken to reach the same:

  memory         of reading all weights of layers and head once, which is what `fixed` was
  products       of the operations of a row in all layers, which is `row` + `row_beyond`
  below ridge    which part of that a row takes while products wait for weights: `row` of the sum
  cache          of reading keys and values, which is `context_token`
  attention      of the operations of a pair, which is `attended_pair`
  ridge          of fixed / (row + row_beyond), which would be the ridge of a perfect roofline

Over n GPUs by tensor parallelism all times are divided by n, and each layer adds two all-reduces:
2 (n - 1) / n of a row's bytes at NVLINK_SHARE of the link's rate for each row, and ALL_REDUCE_S for
each step. A draw costs the head's operations, as products. Nothing here was fitted to what anyone
published, nor to what came out of it. scripts/bench/published_costs.py has published step times.
"""

import argparse
import dataclasses
import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROFILES = ROOT / "deploy/profiles"
ELEMENT = 2  # bytes, of fp16
# NCCL's all-reduce over NVLink, as nccl-tests report it: 230 GB/s of an A100's 300 each way for
# large buffers, and some 20 us for those of a few rows.
NVLINK_SHARE = 230 / 300
ALL_REDUCE_S = 20e-6


@dataclasses.dataclass(frozen=True)
class Gpu:
    name: str
    bytes_per_second: float  # of its memory
    flop_per_second: float  # of fp16 or bf16 products, dense
    memory_bytes: float
    link_bytes_per_second: float  # of NVLink, each way


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    title: str
    layers: int
    hidden: int
    vocabulary: int
    layer_weights: int  # of matrices of one layer
    kv_width: int  # elements of keys of a token in one layer
    positions: int = 0  # that have an embedding each

    def weights_read(self) -> int:
        """Of a step: layers and head."""
        return self.layers * self.layer_weights + self.vocabulary * self.hidden

    def weights_stored(self) -> int:
        """The head is the embedding, turned around."""
        return self.weights_read() + self.positions * self.hidden

    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_width * ELEMENT

    def row_flop(self) -> float:
        return 2.0 * self.layers * self.layer_weights

    def pair_flop(self) -> float:
        """A product with a key and one with a value, for each element of the queries."""
        return 4.0 * self.layers * self.hidden

    def head_flop(self) -> float:
        return 2.0 * self.vocabulary * self.hidden


def opt(size: str, layers: int, hidden: int) -> Model:
    """Zhang et al. 2022, table 1: four square matrices of attention, two of four times the width."""
    name, title = f"opt{size.lower()}", f"OPT-{size}"
    return Model(name, title, layers, hidden, 50_272, 12 * hidden * hidden, hidden, 2050)


# Data sheets: SXM, dense.
A100 = Gpu("a100", 2039e9, 312e12, 80e9, 300e9)
H200 = Gpu("h200", 4.8e12, 989e12, 141e9, 450e9)
OPT_13B = opt("13B", 40, 5120)
OPT_66B = opt("66B", 64, 9216)
LLAMA_LAYER = 4096 * (6144 + 4096 + 28_672 + 14_336)  # qkv, o, gate and up, down
LLAMA_8B = Model("llama3-8b", "Llama-3-8B", 32, 4096, 128_256, LLAMA_LAYER, 1024)
DERIVED = [(OPT_13B, 1), (OPT_13B, 2), (OPT_13B, 4), (OPT_66B, 2), (OPT_66B, 4), (OPT_66B, 8)]


@dataclasses.dataclass(frozen=True)
class Shares:
    """Of a data sheet's promises, as the rule above names them."""

    memory: float
    products: float
    below_ridge: float
    cache: float
    attention: float
    ridge: float


def shares(step_us: dict[str, float], model: Model, gpu: Gpu) -> Shares:
    """What a measured profile of this model reached on this GPU."""
    us = {key: value * 1e-6 for key, value in step_us.items() if key.endswith("_us")}
    row = us["row_us"] + us["row_beyond_us"]
    return Shares(
        memory=model.weights_read() * ELEMENT / us["fixed_us"] / gpu.bytes_per_second,
        products=model.row_flop() / row / gpu.flop_per_second,
        below_ridge=us["row_us"] / row,
        cache=model.kv_bytes_per_token() / us["context_token_us"] / gpu.bytes_per_second,
        attention=model.pair_flop() / us["attended_pair_us"] / gpu.flop_per_second,
        ridge=step_us["ridge_rows"] / (us["fixed_us"] / row),
    )


def measured_shares() -> Shares:
    measured = yaml.safe_load((PROFILES / "h200-llama3-8b.yaml").read_text())
    return shares(measured["step"], LLAMA_8B, H200)


def step_us(model: Model, gpu: Gpu, tp: int, reached: Shares) -> dict[str, float]:
    """The costs of a step over `tp` GPUs, as a profile has them."""
    memory = gpu.bytes_per_second * reached.memory * tp
    products = gpu.flop_per_second * reached.products * tp
    reduces = 2 * model.layers if tp > 1 else 0
    reduced = 2 * (tp - 1) / tp * model.hidden * ELEMENT
    reduce_row = reduces * reduced / (gpu.link_bytes_per_second * NVLINK_SHARE)
    read = model.weights_read() * ELEMENT / memory
    row = model.row_flop() / products
    costs = {
        "fixed_us": read + reduces * ALL_REDUCE_S,
        "row_us": row * reached.below_ridge + reduce_row,
        "row_beyond_us": row * (1 - reached.below_ridge),
        "context_token_us": model.kv_bytes_per_token()
        / (gpu.bytes_per_second * reached.cache * tp),
        "attended_pair_us": model.pair_flop() / (gpu.flop_per_second * reached.attention * tp),
        "output_us": model.head_flop() / products,
    }
    return {key: value * 1e6 for key, value in costs.items()} | {
        "ridge_rows": reached.ridge * read / row
    }


def prompt_s(us: dict[str, float], n: int) -> float:
    """Seconds of a step of one prompt of n tokens, by a profile's costs."""
    return 1e-6 * (
        us["fixed_us"]
        + us["row_us"] * n
        + us["row_beyond_us"] * max(0, n - us["ridge_rows"])
        + us["context_token_us"] * n
        + us["attended_pair_us"] * n * (n + 1) / 2
        + us["output_us"]
    )


def decode_s(us: dict[str, float], sequences: int, context: int) -> float:
    """Seconds of a step of running sequences, which have so many tokens together."""
    return 1e-6 * (
        us["fixed_us"]
        + (us["row_us"] + us["output_us"]) * sequences
        + us["row_beyond_us"] * max(0, sequences - us["ridge_rows"])
        + (us["context_token_us"] + us["attended_pair_us"]) * context
    )


def kv_tokens(model: Model, gpu: Gpu, num_gpus: int, usable: float = 0.9) -> int:
    """That fit beside the weights into this share of the memory."""
    free = usable * gpu.memory_bytes * num_gpus - model.weights_stored() * ELEMENT
    return max(0, int(free / model.kv_bytes_per_token()))


def profile(model: Model, gpu: Gpu, tp: int, slower: float = 1.0) -> dict:
    """A profile, all of whose steps take `slower` times as long."""
    costs = step_us(model, gpu, tp, measured_shares())
    return {
        "name": f"{gpu.name}-{model.name}-tp{tp}",
        "source": "derived, not measured: the rule is at the top of scripts/bench/derive_profile.py",
        "kv_bytes_per_token": model.kv_bytes_per_token(),
        "step": {
            key: float(f"{value * (1 if key == 'ridge_rows' else slower):.4g}")
            for key, value in costs.items()
        },
        "link": {
            "latency_us": 20,
            "byte_us": float(f"{1e6 / (gpu.link_bytes_per_second * NVLINK_SHARE):.4g}"),
        },
    }


def text_of(model: Model, gpu: Gpu, tp: int) -> str:
    reached = measured_shares()
    said = ", ".join(
        f"{key.replace('_', ' ')} {value:.2f}" for key, value in dataclasses.asdict(reached).items()
    )
    size = model.weights_stored() / 1e9
    return (
        f"# {model.title} ({size:.1f} billion weights, fp16) on {tp} {gpu.name.upper()} of 80 GB.\n"
        "# Derived, not measured, by scripts/bench/derive_profile.py, which states the rule: of the\n"
        "# data sheet's roofs the shares that h200-llama3-8b reached of its own GPU's.\n"
        f"# {said}.\n"
        "# The link is NVLink, at the share that NCCL reaches.\n"
        + yaml.safe_dump(profile(model, gpu, tp), sort_keys=False)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=PROFILES)
    folder = parser.parse_args().output
    for model, tp in DERIVED:
        path = folder / f"{profile(model, A100, tp)['name']}.yaml"
        path.write_text(text_of(model, A100, tp))
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
