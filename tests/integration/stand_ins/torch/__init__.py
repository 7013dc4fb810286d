"""The little of torch that GuideLLM uses: an iterable data loader in one process.

GuideLLM asks for torch only to walk over its list of prompts. The real one weighs six gigabytes
with its GPU libraries, so the tests put this directory on GuideLLM's path instead.
"""

from torch import utils as utils


class Generator:
    def manual_seed(self, seed):
        self.seed = seed
        return self
