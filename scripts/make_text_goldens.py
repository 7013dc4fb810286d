#!/usr/bin/env python3
"""Makes tests/text/data: what the reference implementations give, for the C++ tests to compare with.

python3 -m venv .venv && .venv/bin/pip install tokenizers jinja2 gguf numpy
.venv/bin/python scripts/make_text_goldens.py templates
.venv/bin/python scripts/make_text_goldens.py tokenizers
.venv/bin/python scripts/make_text_goldens.py model FILE.gguf        # the quick-start model's
.venv/bin/python scripts/make_text_goldens.py show FAMILY INDEX      # what one string shall give
"""

# Its tables are easier to read as they stand.
# fmt: off

import argparse
import datetime
import json
import pathlib

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "text" / "data"
NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)  # as in the C++ tests


# ---------------------------------------------------------------- chat templates


def jinja_environment():
    """Jinja as transformers sets it up for chat templates."""
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def rendered(env, template, variables):
    try:
        return {"expected": env.from_string(template).render(**variables)}
    except Exception:  # any refusal counts; which one is Python's matter
        return {"error": True}


def write_lines(name, rows):
    with open(DATA / name, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{name}: {len(rows)} rows")


def make_templates():
    env = jinja_environment()
    with open(DATA / "jinja_cases.jsonl", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    for case in cases:
        case.pop("expected", None)
        case.pop("error", None)
        case.update(rendered(env, case["template"], case.get("variables", {})))
    write_lines("jinja_cases.jsonl", cases)

    conversations = json.loads((DATA / "conversations.json").read_text(encoding="utf-8"))
    rows = []
    for path in sorted((DATA / "templates").glob("*.jinja")):
        for index, messages in enumerate(conversations):
            for options in ({"add_generation_prompt": True}, {"add_generation_prompt": False},
                            {"add_generation_prompt": True, "enable_thinking": False}):
                variables = {"messages": messages, "tools": None, "documents": None,
                             "bos_token": "<s>", "eos_token": "</s>", **options}
                rows.append({"template": path.name, "conversation": index, "options": options,
                             **rendered(env, path.read_text(encoding="utf-8"), variables)})
    write_lines("chat_cases.jsonl", rows)


# ---------------------------------------------------------------- strings and hashes

STRINGS = 1500  # of each family
MASK = (1 << 64) - 1


class Random:
    """SplitMix64, as in tests/text/random_text.h."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n


def fnv(data):
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def hash_of_ids(ids):
    return fnv(b"".join(i.to_bytes(4, "little") for i in ids))


ALPHABET = json.loads((DATA / "alphabet.json").read_text(encoding="utf-8"))


def fragment(random):
    kind = random.below(100)
    if kind < 70:
        group = ALPHABET["groups"][random.below(len(ALPHABET["groups"]))]
        return group[random.below(len(group))]
    if kind < 85:
        low, high = ALPHABET["ranges"][random.below(len(ALPHABET["ranges"]))]
        return chr(low + random.below(high - low + 1))
    letters = "etaoinshrdluETAOIN"
    return "".join(letters[random.below(len(letters))] for _ in range(1 + random.below(9)))


def random_text(family, index):
    if index < len(ALPHABET["fixed"]):
        return ALPHABET["fixed"][index]
    random = Random(fnv(family.encode()) << 32 | index)
    out = ""
    for _ in range(1 + random.below(24)):
        part = fragment(random)
        if random.below(40) == 0:
            part *= 2 + random.below(40)
        out += part
    return out


def random_ids(family, index, vocab_size):
    random = Random(fnv(family.encode()) << 32 | index | 1 << 31)
    return [random.below(vocab_size) for _ in range(random.below(20))]


def flags_of(index):
    """add_special, parse_special"""
    return index % 2 == 0, index // 2 % 2 == 0


def encode(tokenizer, index, text):
    add_special, parse_special = flags_of(index)
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=add_special).ids


def decode(family, tokenizer, index, ids):
    """Of random ids; of the text's own where a run of byte tokens decodes as one or not at all."""
    if not tokenizer.model.byte_fallback:
        ids = random_ids(family, index, tokenizer.get_vocab_size())
    return tokenizer.decode(ids, skip_special_tokens=index % 2 == 0)


def write_hashes(family, tokenizer):
    with open(DATA / f"{family}.hashes", "w", encoding="ascii") as out:
        for index in range(STRINGS):
            ids = encode(tokenizer, index, random_text(family, index))
            text = decode(family, tokenizer, index, ids)
            out.write(f"{hash_of_ids(ids):08x} {fnv(text.encode()):08x}\n")
    print(f"{family}: {STRINGS} strings, {tokenizer.get_vocab_size()} tokens")


# ---------------------------------------------------------------- small tokenizers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def training_lines():
    """Text with the shapes of the test strings, but none of the strings."""
    random = Random(2024)
    groups = ALPHABET["groups"]
    words = ["under", "stand", "stan", "tion", "water", "ther", "inter", "nation", "al", "ly",
             "quick", "brown", "fox", "jump", "ed", "over", "lazy", "dog", "re", "turn", "print",
             "self", "value", "for", "while", "если", "это", "слово", "größe", "mañana", "être"]
    lines = []
    for _ in range(3000):
        line = ""
        for _ in range(12):
            if random.below(3):
                line += (" " if random.below(4) else "") + words[random.below(len(words))]
            else:
                group = groups[random.below(10)]
                line += group[random.below(len(group))]
        lines.append(line + "\n")
    return lines


def byte_level(pre_tokenizer, normalizer=None, vocab_size=900, drop_bytes="", **model):
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = [c for c in pre_tokenizers.ByteLevel.alphabet() if c not in drop_bytes]
    limit = {"limit_alphabet": len(alphabet)} if drop_bytes else {}
    lines = training_lines()
    if drop_bytes:  # as SmolLM2: some bytes are no token
        lines = [line for line in lines if all(ord(c) < 0x250 for c in line)]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=sorted(alphabet),
                                  show_progress=False, **limit)
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def split_byte_level(*patterns):
    from tokenizers import Regex, pre_tokenizers
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def bos_template(bos, bos_id):
    from tokenizers import processors
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                                         special_tokens=[(bos, bos_id)])


def special(tokenizer, *names):
    from tokenizers import AddedToken
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])


def make_gpt2():
    from tokenizers import pre_tokenizers
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    special(tokenizer, "<|endoftext|>")
    return tokenizer


def make_smollm():
    from tokenizers import pre_tokenizers
    tokenizer = byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]), drop_bytes="ÀÁõö÷øùúûüýþÿñòóàáâĀāĂăĄć")
    special(tokenizer, "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return tokenizer


def make_llama3():
    from tokenizers import Tokenizer, processors
    tokenizer = byte_level(split_byte_level(LLAMA3))
    state = json.loads(tokenizer.to_str())
    # Tokens that no merge reaches: only ignore_merges finds them.
    state["model"]["merges"] = [m for i, m in enumerate(state["model"]["merges"]) if i % 9 != 5]
    state["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    special(tokenizer, "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
            "<|end_header_id|>", "<|eot_id|>", *(f"<|reserved_special_token_{i}|>" for i in range(12)))
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True), bos_template("<|begin_of_text|>", bos)])
    return tokenizer


def make_qwen2():
    from tokenizers import AddedToken, normalizers
    tokenizer = byte_level(split_byte_level(QWEN2), normalizers.NFC())
    special(tokenizer, "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens([AddedToken(n, special=False, normalized=False)
                          for n in ("<think>", "</think>", "<tool_call>", "</tool_call>")])
    return tokenizer


def make_tekken():
    tokenizer = byte_level(split_byte_level(TEKKEN))
    special(tokenizer, "<unk>", "<s>", "</s>", "[INST]", "[/INST]")
    tokenizer.post_processor = bos_template("<s>", tokenizer.token_to_id("<s>"))
    return tokenizer


def sentencepiece_like(normalizer, pre_tokenizer, decoder):
    """Llama 2's kind: characters, byte fallback, U+2581 for the space."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    lines = [line for line in training_lines() if all(ord(c) < 0x2600 for c in line)]
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, limit_alphabet=180,
                                                           show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    names += sorted(model["vocab"], key=model["vocab"].get)
    tokenizer = Tokenizer(models.BPE(
        vocab={name: i for i, name in enumerate(names)}, merges=[tuple(m) for m in model["merges"]],
        unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    special(tokenizer, "<unk>", "<s>", "</s>")
    tokenizer.post_processor = bos_template("<s>", 1)
    return tokenizer


def make_llama2():
    from tokenizers import decoders, normalizers
    return sentencepiece_like(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None,
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                           decoders.Strip(content=" ", left=1, right=0)]))


def make_metaspace():
    from tokenizers import decoders, pre_tokenizers
    return sentencepiece_like(
        None, pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                           decoders.Strip(content=" ", left=1, right=0)]))


def make_flags():
    """Added tokens with every flag, a prefix space, compatibility normalization."""
    from tokenizers import AddedToken, normalizers, pre_tokenizers
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFKC())
    special(tokenizer, "<s>")
    tokenizer.add_tokens([
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<lstrip>", lstrip=True, normalized=True),
        AddedToken("<rstrip>", rstrip=True, normalized=False),
        AddedToken("<word>", single_word=True, normalized=True),
        AddedToken("<norm>", normalized=True), AddedToken("<\u2126ng>", normalized=True),
        AddedToken("ﬁx", normalized=True), AddedToken("<日>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, lstrip=True, normalized=True)])
    return tokenizer


def make_splits():
    """Every way to split, one after the other."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    split = pre_tokenizers.Split
    return byte_level(pre_tokenizers.Sequence([
        split(" ", "merged_with_next"), split(Regex(r"\p{P}"), "merged_with_previous"),
        split(Regex(r"\s"), "contiguous"), split(Regex(r"[\w\-]+|x*"), "isolated"),
        split(Regex(r"[^\S\n]|\u4e2d"), "removed"),
        split(Regex(r"[a-m]+"), "isolated", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizers.NFD())


FAMILIES = {"gpt2": make_gpt2, "smollm": make_smollm, "llama3": make_llama3, "qwen2": make_qwen2,
            "tekken": make_tekken, "llama2": make_llama2, "metaspace": make_metaspace,
            "flags": make_flags, "splits": make_splits}


def make_tokenizers():
    for family, make in FAMILIES.items():
        folder = DATA / family
        folder.mkdir(exist_ok=True)
        tokenizer = make()
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
        write_hashes(family, tokenizer)


# ---------------------------------------------------------------- the quick-start model


def smollm_of_gguf(path):
    """The tokenizer that a GGUF file of the smollm kind holds."""
    import gguf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(line.split(" ")) for line in fields["tokenizer.ggml.merges"].contents()]
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special(tokenizer, *(t for t, kind in zip(tokens, types) if kind == 3))
    return tokenizer


def show(family, index):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(DATA / family / "tokenizer.json"))
    text = random_text(family, index)
    ids = encode(tokenizer, index, text)
    print("text:", repr(text), "\nflags:", flags_of(index), "\nids:", ids)
    print("tokens:", [tokenizer.id_to_token(i) for i in ids])
    print("random ids:", random_ids(family, index, tokenizer.get_vocab_size()))
    print("decoded:", repr(decode(family, tokenizer, index, ids)))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("templates")
    commands.add_parser("tokenizers")
    commands.add_parser("model").add_argument("file")
    one = commands.add_parser("show")
    one.add_argument("family")
    one.add_argument("index", type=int)
    args = parser.parse_args()
    if args.what == "templates":
        make_templates()
    elif args.what == "tokenizers":
        make_tokenizers()
    elif args.what == "model":
        write_hashes("smollm2", smollm_of_gguf(args.file))
    else:
        show(args.family, args.index)


if __name__ == "__main__":
    main()
