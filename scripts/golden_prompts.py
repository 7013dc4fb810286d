"""The prompts of the quick-start model's goldens. For make_goldens.py."""

LONG = """The lighthouse at Brannoc Point had been dark for eleven years when the letter came. It was \
addressed to nobody in particular, only to "the keeper", and since there was no keeper the postman \
left it with Mara Teague, who sold rope and paraffin and tinned peaches at the foot of the hill. She \
put it on the shelf behind the till, beside the scales, and for three days she did not open it. On \
the fourth day it rained so hard that nobody came, and she slit the envelope with the knife she used \
for twine. Inside was a single sheet, folded twice, and a brass key no longer than her thumb.

The sheet said: "The lamp will be needed on the night of the ninth. Whoever reads this, please see \
that it burns from dusk until the second tide. There will be payment." It was not signed. Mara read \
it four times. The ninth was a week away. She knew, as everybody in the village knew, that the lamp \
had not failed; it had been put out, by order of a board in a city none of them had ever seen, \
because ships no longer passed that way. There was a new channel to the north, dredged and buoyed, \
and the old passage under the cliffs was left to the seals.

She told her brother Oran, who laughed, and she told the schoolteacher, Mr. Penhale, who did not. \
Mr. Penhale turned the key over in the light of the window and said that it was not a door key at \
all. "It winds something," he said. "A clock, perhaps. Or the mechanism that turned the lens." They \
climbed the hill together that evening, with a lantern and a can of oil, and found the great door \
unlocked, as it had always been, for there was nothing left inside that anybody wanted to steal. The \
stairs went up in a spiral, a hundred and forty-two of them, and at every landing there was a small \
window crusted with salt, through which the sea looked like beaten lead.

At the top the lens stood under a canvas sheet, taller than a man, ring upon ring of prisms. Behind \
it was a wooden cabinet, and in the cabinet a train of wheels, and in the middle of the wheels a \
square hole exactly the size of the key. Mara fitted it and turned. Something far below them, deep \
in the rock, began to tick. Mr. Penhale took off his hat. "Well," he said, "somebody has kept it \
oiled." They looked at one another, and then down at the floor, where in the dust there was a line \
of footprints, small and quite fresh, leading from the cabinet to the window and not coming back.

The days that followed were bright and cold. Mara ordered more paraffin than she could sell, and \
wrote in her account book, under the heading of sundries, the single word "lamp". Oran stopped \
laughing when he found that the old channel buoys, which had been hauled up and sold for scrap, were \
floating again in their places, freshly painted, each with its bell. Nobody had seen them laid. On \
the eighth the wind went round to the south-west and the glass began to fall."""

CODE = '''def merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge overlapping intervals and return them sorted."""
    if not intervals:
        return []
    intervals = sorted(intervals)
    merged = [intervals[0]]
    for start, end in intervals[1:]:
'''

CPP = """#include <vector>

// Returns the index of the first element that is not less than `key`.
template <class T>
size_t lower_bound(const std::vector<T>& v, const T& key) {
  size_t lo = 0, hi = v.size();
"""


def prompts(tokenizer):
    """(name, text) pairs, special tokens written out."""

    def chat(*messages):
        return tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages],
            tokenize=False,
            add_generation_prompt=True,
        )

    return [
        ("chat", chat(("user", "What is the capital of France?"))),
        (
            "chat with system and history",
            chat(
                ("system", "You are a terse assistant who answers in one sentence."),
                ("user", "Why is the sky blue?"),
                (
                    "assistant",
                    "Because air scatters short wavelengths of sunlight more than long ones.",
                ),
                ("user", "And why is it red in the evening?"),
            ),
        ),
        (
            "chat asking for a list",
            chat(("user", "List five things to pack for a week of hiking.")),
        ),
        ("long chat", chat(("user", "Summarize this story in three sentences.\n\n" + LONG))),
        ("long prose", LONG),
        ("code python", CODE),
        ("code c++", CPP),
        (
            "json",
            '{"name": "Ada Lovelace", "born": 1815, "languages": ["English", "French"], "known',
        ),
        ("digits", "3.14159265358979323846264338327950288419716939937510582097494459"),
        ("arithmetic", chat(("user", "Compute 1234 + 5678, then divide the result by 2."))),
        ("emoji", chat(("user", "Tell me a story with 🦊, 🌲 and 🚀! Use emoji 😀👩‍👩‍👧‍👦."))),
        (
            "multilingual",
            "English: Good morning. Français : Bonjour. Deutsch: Guten Morgen. 日本語：おはよう。"
            " Русский: Доброе утро. العربية: صباح الخير. Español:",
        ),
        ("list", "Shopping list:\n- 2 apples\n- 1 loaf of bread\n- 500 g of flour\n-"),
        ("dialogue", 'ALICE: "Have you seen my umbrella?"\nBOB: "'),
        ("whitespace", "a\n\n\n   b\t\tc   \n  "),
        ("one token", "The"),
    ]
