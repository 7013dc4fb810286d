"""The clusters that are compared with DistServe's: theirs, their baseline, and what else could be done
with the same GPUs. Each is a cluster file for `baton sim`, with the flags that go with it.
"""

import dataclasses

from bench import derive_profile, lengths, published_costs
from bench.derive_profile import A100, OPT_13B, OPT_66B, Model

BLOCK = 16  # tokens, as the paper's engines have it
SEQUENCES = 256
# Prompts of up to so many tokens are computed at once by the paper's vLLM.
VLLM_STEP = 16_384
BUDGETS = [256, 512, 1024, 2048, 4096, 0]  # prompt tokens in a step; 0: whole prompts
FCFS = ["--policy", "least_loaded", "--admission=false", "--local-prefill-tokens", "0"]
PROMISE = ["--policy", "goodput", "--admission=true"]


@dataclasses.dataclass(frozen=True)
class Workload:
    key: str
    title: str
    model: Model
    means: lengths.Means
    slo: str
    paper_split: float  # requests a second and GPU; 0: only the ratio is told
    paper_ratio: float
    prefill_tp: int
    decode_tp: int
    decode_stages: int  # of a pipeline
    vllm_tp: int
    mixed_tps: tuple[int, ...]
    paper_prompts: int  # for each GPU, of a run
    guess: float  # requests a second and GPU: where searches start
    other_slos: tuple[str, ...] = ()  # that the paper's artifact goes by

    def split_gpus(self) -> int:
        return self.prefill_tp + self.decode_tp * self.decode_stages


SHAREGPT = lengths.Means(755.5, 200.3)
HUMANEVAL = lengths.Means(171.3, 98.2)
LONGBENCH = lengths.Means(1738.3, 90.7, cut=True)
# Parallelism: the paper's table 3. Targets: its table 1. Goodput: its figures 8 and 9. Prompts of a
# run: its artifact (evaluation/ae-scripts/e2e).
WORKLOADS = [
    Workload("13b-sharegpt", "OPT-13B, ShareGPT", OPT_13B, SHAREGPT, "ttft=0.25,tpot=0.1",
             2.30, 2.30 / 0.50, 2, 1, 1, 1, (1, 2), 100, 1.5, ("ttft=0.2,tpot=0.1",)),
    Workload("66b-sharegpt", "OPT-66B, ShareGPT", OPT_66B, SHAREGPT, "ttft=2.5,tpot=0.15",
             0.955, 0.955 / 0.347, 4, 2, 2, 4, (4, 8), 25, 0.5, ("ttft=0.4,tpot=0.1",)),
    Workload("66b-longbench", "OPT-66B, LongBench", OPT_66B, LONGBENCH, "ttft=15,tpot=0.15",
             0.53, 0.53 / 0.125, 4, 2, 2, 4, (4, 8), 25, 0.3),
    Workload("66b-humaneval", "OPT-66B, HumanEval", OPT_66B, HUMANEVAL, "ttft=0.125,tpot=0.2",
             0, 5.7, 4, 2, 2, 4, (4, 8), 50, 1.0),
]  # fmt: skip


@dataclasses.dataclass
class Plan:
    workers: list[dict]  # groups of a cluster file, with a whole profile each
    flags: list[str]

    def gpus(self) -> int:
        return sum(group["gpus"] * group["count"] for group in self.workers)


def group(role: str, profile: dict, gpus: int, kv_tokens: int, **more) -> dict:
    return {
        "role": role,
        "count": 1,
        "profile": profile,
        "gpus": gpus,
        "kv_tokens": kv_tokens,
        "block_tokens": BLOCK,
        "chunk_tokens": 0,
        "max_sequences": SEQUENCES,
        "max_context": lengths.POSITIONS,
        "prefix_cache": False,
    } | more


def with_costs(model: Model, tp: int, name: str, costs: dict) -> dict:
    """A profile with the steps of someone else."""
    return derive_profile.profile(model, A100, tp) | {"name": name, "step": costs}


def mixed(w: Workload, tp: int, count: int, chunk: int, slower=1.0, flags=FCFS) -> Plan:
    profile = derive_profile.profile(w.model, A100, tp, slower)
    kv = derive_profile.kv_tokens(w.model, A100, tp)
    return Plan([group("mixed", profile, tp, kv, count=count, chunk_tokens=chunk)], flags)


def baseline(w: Workload, slower: float = 1) -> Plan:
    """vLLM of the time: one engine, whole prompts."""
    plan = mixed(w, w.vllm_tp, 1, 0, slower)
    plan.workers[0]["step_tokens"] = VLLM_STEP
    return plan


def split(w: Workload, slower: float = 1, flags=FCFS) -> Plan:
    return split_of(
        w,
        derive_profile.profile(w.model, A100, w.prefill_tp, slower),
        derive_profile.profile(w.model, A100, w.decode_tp, slower),
        flags,
    )


def split_of(w: Workload, prefill: dict, decode: dict, flags: list[str]) -> Plan:
    """One instance of each kind. A pipeline of k stages decodes k batches in turn, each of which has
    its next token after the time of a whole step: as k workers do, with a k-th of the GPUs' memory.
    """
    prefill_kv = derive_profile.kv_tokens(w.model, A100, w.prefill_tp)
    decode_kv = derive_profile.kv_tokens(w.model, A100, w.decode_tp * w.decode_stages)
    decode_kv //= w.decode_stages
    return Plan(
        [
            group("prefill", prefill, w.prefill_tp, prefill_kv),
            group("decode", decode, w.decode_tp, decode_kv, count=w.decode_stages),
        ],
        flags,
    )


def published_split(w: Workload) -> Plan:
    """DistServe's engine with the times that its authors measured."""
    of = published_costs.PUBLISHED
    name = w.model.name
    prompt = published_costs.prompt_costs(of["distserve", name, w.prefill_tp])
    step = published_costs.decode_costs(of["distserve", name, w.decode_tp])
    prefill = with_costs(w.model, w.prefill_tp, f"distserve-{name}-prefill", prompt)
    decode = with_costs(w.model, w.decode_tp, f"distserve-{name}-decode", step)
    return split_of(w, prefill, decode, FCFS)


def published_baseline(w: Workload) -> Plan:
    """vLLM with the times that DistServe's authors measured."""
    plan = baseline(w)
    of = published_costs.PUBLISHED["vllm", w.model.name, w.vllm_tp]
    plan.workers[0]["profile"] = with_costs(
        w.model, w.vllm_tp, f"vllm-{w.model.name}", published_costs.prompt_costs(of)
    )
    return plan


def with_memory(w: Workload, plan: Plan, usable: float) -> Plan:
    """The same with this share of the GPUs' memory for weights and KV."""
    groups = []
    for g in plan.workers:
        gpus, workers = g["gpus"] * g["count"], g["count"]
        if g["role"] == "mixed":  # each has weights of its own
            gpus, workers = g["gpus"], 1
        kv = derive_profile.kv_tokens(w.model, A100, gpus, usable) // workers
        groups.append(g | {"kv_tokens": kv})
    return Plan(groups, plan.flags)


def ceilings(w: Workload, pairs: list[tuple[int, int]]) -> tuple[float, float]:
    """Requests a second and GPU that the split's prefill and decode could at most serve for ever, by
    the published step times, late or not: prompts in steps without end, and all of the GPUs' memory
    for weights and KV.
    """
    prefill = published_costs.PUBLISHED["distserve", w.model.name, w.prefill_tp]
    decode = published_costs.PUBLISHED["distserve", w.model.name, w.decode_tp]
    answers = lengths.mean_of(pairs, 1)
    _, row, pair = prefill.prompt
    prompt_s = 1e-3 * sum(row * p + pair * p * p for p, _ in pairs) / len(pairs)
    gpus = w.decode_tp * w.decode_stages
    tokens = derive_profile.kv_tokens(w.model, A100, gpus, usable=1.0) / w.decode_stages
    # Tokens of a sequence, as the mean over its steps.
    resident = sum(a * (p + a / 2) for p, a in pairs) / len(pairs) / answers
    batch = tokens / resident
    per_second = w.decode_stages * batch / decode.decode_s(batch, tokens) / answers
    return 1 / prompt_s / w.split_gpus(), per_second / w.split_gpus()
