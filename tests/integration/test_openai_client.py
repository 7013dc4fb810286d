"""The openai package, as its users call it."""

import asyncio

import openai
import pytest


@pytest.fixture(scope="module")
def client(split):
    with openai.OpenAI(base_url=split.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client) -> str:
    [model] = client.models.list().data
    assert model.object == "model"
    assert client.models.retrieve(model.id).id == model.id
    return model.id


MESSAGES = [
    {"role": "system", "content": "You pass the baton."},
    {"role": "user", "content": [{"type": "text", "text": "Tell me more, "}]},
    {"role": "assistant", "content": "Gladly."},
    {"role": "user", "content": "go on 😀"},
]


def test_chat(client, model):
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_completion_tokens=12, temperature=0
    )
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.object == "chat.completion"


def test_chat_streams_the_same_text(client, model):
    fields = dict(model=model, messages=MESSAGES, max_tokens=24, temperature=0.8, seed=5)
    whole = client.chat.completions.create(**fields)
    chunks = list(
        client.chat.completions.create(
            **fields, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {c.id for c in chunks} == {chunks[0].id}
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert finishes[-1] == whole.choices[0].finish_reason
    assert set(finishes[:-1]) == {None}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_usage_is_streamed_only_when_asked_for(client, model):
    chunks = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=4, stream=True
    )
    assert all(c.usage is None and c.choices for c in chunks)


def test_completion(client, model):
    answer = client.completions.create(model=model, prompt="pass the", max_tokens=8, temperature=0)
    [choice] = answer.choices
    assert answer.object == "text_completion"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 8


def test_completion_streams_the_same_text(client, model):
    fields = dict(model=model, prompt="the quick", max_tokens=24, temperature=1.0, seed=3)
    whole = client.completions.create(**fields)
    text = "".join(c.choices[0].text for c in client.completions.create(**fields, stream=True))
    assert text == whole.choices[0].text


def test_a_batch_of_prompts_answers_each_in_order(client, model):
    prompts = ["one", "two 日本", "three"]
    fields = dict(model=model, max_tokens=6, temperature=0)
    together = client.completions.create(prompt=prompts, n=2, **fields)
    assert [c.index for c in together.choices] == list(range(6))
    for i, prompt in enumerate(prompts):
        alone = client.completions.create(prompt=prompt, **fields).choices[0]
        for choice in together.choices[2 * i : 2 * i + 2]:
            assert (choice.text, choice.finish_reason) == (alone.text, alone.finish_reason)


def test_token_ids_as_prompt(client, model):
    fields = dict(model=model, max_tokens=6, temperature=0)
    ids = [5, 6, 7, 300]
    one = client.completions.create(prompt=ids, **fields)
    batch = client.completions.create(prompt=[ids, [9, 10]], **fields)
    assert one.usage.prompt_tokens == 4
    assert batch.usage.prompt_tokens == 6
    assert batch.choices[0].text == one.choices[0].text


def test_choices_differ_and_repeat_by_seed(client, model):
    fields = dict(model=model, prompt="a", max_tokens=16, temperature=1.2, n=3, seed=11)
    first = [c.text for c in client.completions.create(**fields).choices]
    again = [c.text for c in client.completions.create(**fields).choices]
    assert first == again
    assert len(set(first)) == 3


def test_chat_choices_in_a_stream(client, model):
    fields = dict(model=model, messages=MESSAGES, max_tokens=8, temperature=1.0, n=2, seed=4)
    whole = client.chat.completions.create(**fields)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [c.message.content for c in whole.choices]


def test_stop_string_ends_the_text_before_it(client, model):
    fields = dict(model=model, prompt="stop", max_tokens=40, temperature=1.0, seed=8)
    free = client.completions.create(**fields).choices[0].text
    stop = free[5:7]
    cut = client.completions.create(**fields, stop=[stop]).choices[0]
    assert cut.text == free[: free.index(stop)]
    assert cut.finish_reason == "stop"
    streamed = client.completions.create(**fields, stop=stop, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == cut.text


def test_completion_logprobs(client, model):
    answer = client.completions.create(
        model=model, prompt="log", max_tokens=5, temperature=0, logprobs=3,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 5
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert value <= 0
        # Greedy takes the likeliest. (Tokens that are no whole character share one key.)
        assert value >= max(top.values())
        assert token in top
        assert 1 <= len(top) <= 4
    assert logprobs.text_offset[0] == 0


def test_chat_logprobs(client, model):
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for item in content:
        assert len(item.top_logprobs) == 2
        assert item.top_logprobs[0].logprob == item.logprob
        assert bytes(item.bytes) is not None


def test_echo_gives_the_prompt_back(client, model):
    answer = client.completions.create(
        model=model, prompt="echo me", max_tokens=3, temperature=0, echo=True, logprobs=1
    )
    choice = answer.choices[0]
    assert choice.text.startswith("echo me")
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.tokens) == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_logit_bias_forces_a_token(client, model):
    answer = client.completions.create(
        model=model, prompt="x", max_tokens=4, logit_bias={"70": 100}, temperature=1.0
    )
    assert len(set(answer.choices[0].text)) == 1


def test_min_tokens_and_ignore_eos(client, model):
    for extra in [{"ignore_eos": True}, {"min_tokens": 64}]:
        answer = client.completions.create(
            model=model, prompt="long", max_tokens=64, temperature=1.5, extra_body=extra
        )
        assert answer.usage.completion_tokens == 64
        assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 100_000}, openai.BadRequestError, None),
    ],
)
def test_errors_have_the_types_of_the_package(client, model, fields, error, param):
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": model, "messages": MESSAGES, **fields})
    assert raised.value.message
    if param:
        assert raised.value.param == param


@pytest.mark.anyio
async def test_async_streams_side_by_side(split, model):
    async with openai.AsyncOpenAI(base_url=split.url + "/v1", api_key="none") as client:

        async def one(seed: int) -> str:
            stream = await client.chat.completions.create(
                model=model, messages=MESSAGES, max_tokens=32, temperature=1.0, seed=seed,
                stream=True,
            )  # fmt: skip
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        texts = await asyncio.gather(*(one(seed % 4) for seed in range(16)))
    assert texts[:4] * 4 == texts
    assert len(set(texts)) == 4


@pytest.mark.anyio
async def test_async_whole(split, model):
    async with openai.AsyncOpenAI(base_url=split.url + "/v1", api_key="none") as client:
        answer = await client.completions.create(model=model, prompt="hello", max_tokens=4)
        assert answer.choices[0].text


def test_leaving_a_stream_leaves_the_server_well(client, model):
    stream = client.completions.create(model=model, prompt="bye", max_tokens=2000, stream=True)
    next(iter(stream))
    stream.close()
    assert client.completions.create(model=model, prompt="next", max_tokens=2).choices
