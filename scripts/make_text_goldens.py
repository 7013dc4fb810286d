#!/usr/bin/env python3
"""Makes tests/text/data: what the reference implementations give, for the C++ tests to compare with.

  python3 -m venv .venv && .venv/bin/pip install tokenizers jinja2 gguf numpy
  .venv/bin/python scripts/make_text_goldens.py templates
"""

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


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["templates"])
    parser.parse_args()
    make_templates()


if __name__ == "__main__":
    main()
