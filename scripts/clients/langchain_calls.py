"""LangChain's classes for OpenAI's API."""

from importlib.metadata import version

import openai
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI
from report import GIVEN, check, check_error, check_text, report

url, token, model, messages, prompt, chat, completion, max_tokens, stop = (
    GIVEN[name]
    for name in ("url", "token", "model", "messages", "prompt", "chat", "completion", "maxTokens", "stop")
)
options = {
    "base_url": url,
    "api_key": token,
    "temperature": 0,
    "max_tokens": max_tokens,
    "max_retries": 0,
}
llm = ChatOpenAI(model=model, stream_usage=True, **options)


def invoke():
    answer = llm.invoke(messages)
    check(answer.usage_metadata["output_tokens"] == max_tokens, answer.usage_metadata)
    check(answer.response_metadata["finish_reason"] == "length", answer.response_metadata)
    return check_text(answer.content, chat)


def stream():
    parts = list(llm.stream(messages))
    check(len(parts) > 2, "the stream came in one part")
    usages = [one.usage_metadata["output_tokens"] for one in parts if one.usage_metadata]
    check(usages == [max_tokens], usages)
    return check_text("".join(one.content for one in parts), chat)


def batch():
    texts = [one.content for one in llm.batch([messages] * 3)]
    check(texts == [chat] * 3, texts)
    return f"{len(texts)} answers"


async def ainvoke():
    return check_text((await llm.ainvoke(messages)).content, chat)


async def astream():
    return check_text("".join([one.content async for one in llm.astream(messages)]), chat)


def chain():
    steps = ChatPromptTemplate.from_messages([("user", "{question}")]) | llm | StrOutputParser()
    return check_text(steps.invoke({"question": messages[0]["content"]}), chat)


def stop_at_text():
    return check_text(llm.bind(stop=["never", stop]).invoke(messages).content, chat[: chat.index(stop)])


def read_logprobs():
    answer = llm.bind(logprobs=True).invoke(messages)
    content = answer.response_metadata["logprobs"]["content"]
    return check_text(bytes(byte for one in content for byte in one["bytes"]).decode(), chat)


def complete():
    return check_text(OpenAI(model=model, **options).invoke(prompt), completion)


report(
    f"LangChain {version('langchain-openai')} (Python)",
    {
        "ChatOpenAI.invoke": invoke,
        "ChatOpenAI.stream": stream,
        "ChatOpenAI.batch": batch,
        "ChatOpenAI.ainvoke": ainvoke,
        "ChatOpenAI.astream": astream,
        "a chain of prompt, model and parser": chain,
        "bind(stop=…)": stop_at_text,
        "bind(logprobs=True)": read_logprobs,
        "OpenAI.invoke": complete,
        "an unknown model": lambda: check_error(
            lambda: ChatOpenAI(model="absent", **options).invoke(messages),
            openai.NotFoundError,
            404,
            model,
        ),
    },
)
