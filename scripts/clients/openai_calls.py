"""OpenAI's client library for Python."""

import openai
from report import GIVEN, check, check_error, check_text, report

url, token, model, messages, prompt, chat, completion, max_tokens, stop = (
    GIVEN[name]
    for name in ("url", "token", "model", "messages", "prompt", "chat", "completion", "maxTokens", "stop")
)
options = {"base_url": url, "api_key": token, "max_retries": 0}
client = openai.OpenAI(**options)
asked = {"model": model, "temperature": 0, "max_tokens": max_tokens}


def ask(**more):
    return client.chat.completions.create(**{**asked, "messages": messages, **more})


def read(answer):
    return answer.choices[0].message.content


def list_models():
    names = [one.id for one in client.models.list()]
    check(names == [model], names)
    return ", ".join(names)


def create_chat():
    answer = ask()
    check(answer.usage.completion_tokens == max_tokens, answer.usage)
    check(answer.choices[0].finish_reason == "length", answer.choices)
    check(answer._request_id.startswith("req_"), answer._request_id)
    return check_text(read(answer), chat)


def stream_chat():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    check(len(chunks) > 2, "the stream came in one part")
    check(chunks[-1].usage.completion_tokens == max_tokens, chunks[-1])
    return check_text("".join(one.delta.content or "" for chunk in chunks for one in chunk.choices), chat)


def stream_with_helper():
    # The client raises an error for an answer that ends at its maximum length.
    with client.chat.completions.stream(**asked, messages=messages, stop=[stop]) as stream:
        return check_text(read(stream.get_final_completion()), chat[: chat.index(stop)])


async def create_async():
    async with openai.AsyncOpenAI(**options) as own:
        return check_text(read(await own.chat.completions.create(**asked, messages=messages)), chat)


async def stream_async():
    async with openai.AsyncOpenAI(**options) as own:
        stream = await own.chat.completions.create(**asked, messages=messages, stream=True)
        texts = [one.delta.content or "" async for chunk in stream for one in chunk.choices]
        check(len(texts) > 1, "the stream came in one part")
        return check_text("".join(texts), chat)


def close_stream():
    with ask(stream=True, max_tokens=100) as stream:
        next(iter(stream))
    return check_text(read(ask()), chat)


def create_completion():
    return check_text(client.completions.create(**asked, prompt=prompt).choices[0].text, completion)


def stop_at_text():
    answer = ask(stop=["never", stop])
    check(answer.choices[0].finish_reason == "stop", answer.choices)
    return check_text(read(answer), chat[: chat.index(stop)])


def sample():
    def draw():
        return [one.message.content for one in ask(n=2, seed=7, temperature=1).choices]

    texts = draw()
    check(len(set(texts)) == 2 and draw() == texts, texts)
    return repr(texts)


def read_logprobs():
    content = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    check(all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in content), content)
    return check_text(bytes(byte for one in content for byte in one.bytes).decode(), chat)


def penalise():
    text = read(ask(frequency_penalty=2, presence_penalty=2))
    check(text != chat, text)
    return repr(text)


def bias_token():
    text = read(ask(logit_bias={"100": 100}))
    check(len(set(text)) == 1, text)
    return repr(text)


def ask_as_developer():
    texts = [
        read(ask(messages=[{"role": role, "content": "Be brief."}, *messages])) for role in ("developer", "system")
    ]
    return check_text(*texts)


def ask_without_effect():
    return check_text(read(ask(store=False, metadata={"a": "b"}, user="ada")), chat)


report(
    f"openai {openai.__version__} (Python)",
    {
        "models.list": list_models,
        "models.retrieve": lambda: client.models.retrieve(model).id,
        "chat.completions.create": create_chat,
        "chat.completions.create, stream": stream_chat,
        "chat.completions.stream": stream_with_helper,
        "AsyncOpenAI": create_async,
        "AsyncOpenAI, stream": stream_async,
        "a stream that the client closes": close_stream,
        "completions.create": create_completion,
        "a list of stop texts": stop_at_text,
        "n and seed": sample,
        "logprobs, with the bytes of the text": read_logprobs,
        "frequency_penalty and presence_penalty": penalise,
        "logit_bias": bias_token,
        "a developer message": ask_as_developer,
        "parameters without effect": ask_without_effect,
        "an unsupported parameter": lambda: check_error(
            lambda: ask(web_search_options={}), openai.BadRequestError, 400, "web_search_options"
        ),
        "an unknown model": lambda: check_error(
            lambda: ask(model="absent"), openai.NotFoundError, 404, model
        ),
        "models.retrieve, an unknown model": lambda: check_error(
            lambda: client.models.retrieve("absent"), openai.NotFoundError, 404, model
        ),
        "a wrong token": lambda: check_error(
            openai.OpenAI(**{**options, "api_key": token + "x"}).models.list,
            openai.AuthenticationError,
            401,
            "",
        ),
    },
)
