"""More prompts than a decode worker's KV cache holds at once."""

import api
import harness
import held
import pytest
from streams import Stream, blocks_held, check, reference

PROMPT = "the baton goes from hand to hand "
STREAMS = 12  # of which three fit


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_full_decode_pool_loses_nothing(start_cluster, medium, transport):
    cluster = start_cluster(
        medium, prefill=1, decode=1, kv_gib=0.02, prefix_cache=False, transport=transport
    )
    bodies = [{"prompt": f"{i} {PROMPT * 140}", "max_tokens": 60} for i in range(STREAMS)]
    expected = [text for body in bodies for text in reference(cluster, [body])]  # one by one
    one = api.complete(cluster, **bodies[0])["usage"]["prompt_tokens"] // 16
    blocks = held.blocks(cluster)
    streams = [Stream(cluster, **body) for body in bodies]

    def free() -> float:
        return cluster.metrics("decode-0").sum("baton_kv_blocks", state="free")

    harness.wait_for(lambda: free() < one, 20, "no room for one more")
    assert check(streams, expected) == STREAMS
    harness.wait_for(lambda: blocks_held(cluster) == 0, 10, "no worker holds a block")
    assert held.blocks(cluster) == blocks
