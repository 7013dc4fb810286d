"""What emulated workers answer: the formula of common/engine/hash_model.h, for their layout."""

WORDS = 4 * 2 * 1  # layers, K and V, heads
_ALL = (1 << 64) - 1


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _ALL
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _ALL
    return x ^ (x >> 31)


def output(prompt: list[int], tokens: int, vocab: int, eos=(), seed=0, choice=0) -> list[int]:
    """The first so many tokens of one choice."""
    context = first = 0
    drawn = []

    def add(token: int, position: int):
        nonlocal context, first
        first = _mix(first ^ _mix(position << 32 | token))
        for i in range(WORDS):
            context = _mix(context ^ (_mix((first + i) & _ALL) if i else first))

    for position, token in enumerate(prompt):
        add(token, position)
    while len(drawn) < tokens:
        h = _mix((context + _mix((seed * 31 + choice) & _ALL)) & _ALL)
        while h % vocab in eos:
            h = _mix(h)
        drawn.append(h % vocab)
        add(drawn[-1], len(prompt) + len(drawn) - 1)
    return drawn
