"""Step times of DistServe's and vLLM's engines as DistServe's authors measured them on A100-80GB.

Zhong et al. 2024, appendix A, has the form; the figures are those that their simulator goes by
(github.com/LLMServe/DistServe, simdistserve/estimators/profile_data, commits 7057aef and 0bba606;
Apache-2.0), in milliseconds: a prompt of n tokens takes a + b n + c n^2, a decode step of s sequences
with k tokens in all a + b k + c s (below 95 sequences).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    prompt: tuple[float, float, float]
    decode: tuple[float, float, float]

    def prompt_s(self, tokens: int) -> float:
        a, b, c = self.prompt
        return 1e-3 * (a + b * tokens + c * tokens**2)

    def decode_s(self, sequences: float, context: float) -> float:
        a, b, c = self.decode
        return 1e-3 * (a + b * context + c * sequences)


# (engine, model, GPUs by tensor parallelism)
PUBLISHED = {
    ("distserve", "opt13b", 1): Published((16.457, 0.092648, 6.4748e-6), (19.935, 6.2694e-4, 0.038507)),
    ("distserve", "opt13b", 2): Published((13.403, 0.062343, 2.2269e-6), (13.295, 3.4109e-4, 0.062964)),
    ("distserve", "opt66b", 2): Published((39.144, 0.249299, 2.0435e-5), (48.288, 9.4243e-4, 0.127550)),
    ("distserve", "opt66b", 4): Published((26.765, 0.137593, 7.5613e-6), (30.760, 4.5195e-4, 0.063284)),
    ("vllm", "opt13b", 1): Published((23.627, 0.150546, 8.6535e-6), (19.563, 4.9411e-4, 0.050606)),
    ("vllm", "opt66b", 4): Published((30.690, 0.152047, 3.2864e-5), (32.985, 5.7881e-4, 0.113174)),
}  # fmt: skip


def prompt_costs(of: Published) -> dict[str, float]:
    """As a profile's `step`, exact for steps of one prompt; n^2 is twice its pairs.

    Where both kinds of steps are taken (vLLM), decode steps follow from it: their rows cost as a
    prompt's, which is right to some milliseconds.
    """
    a, b, c = of.prompt
    context = of.decode[1]
    pair = 2 * c
    return costs(a, b - context, max(0, context - pair), pair)


def decode_costs(of: Published) -> dict[str, float]:
    """As a profile's `step`, exact for steps of running sequences."""
    a, b, c = of.decode
    return costs(a, c, b, 0)


def costs(fixed: float, row: float, context: float, pair: float) -> dict[str, float]:
    """Of milliseconds."""
    return {
        "fixed_us": 1e3 * fixed,
        "row_us": 1e3 * row,
        "row_beyond_us": 0,
        "context_token_us": 1e3 * context,
        "attended_pair_us": 1e3 * pair,
        "output_us": 0,
        "ridge_rows": 0,
    }
