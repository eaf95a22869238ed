"""OpenAI's client. usage: openai_generation.py BASE_URL KEY < questions; prints one answer to each, by kind of client.

A question is {"route": "completions" | "chat", …the keyword arguments of the client's `create`}, and "api_key" where
somebody else asks. An answer tells the text, why it ended, the usage, and in how many pieces it came; or the error
that the client raised.
"""

import asyncio
import json
import sys

import openai


def create(client, question):
    arguments = {name: value for name, value in question.items() if name not in ("route", "api_key")}
    if "api_key" in question:
        client = client.with_options(api_key=question["api_key"])
    resource = client.chat.completions if question["route"] == "chat" else client.completions
    return resource.create(**arguments)


def text_of(choice):
    if hasattr(choice, "text"):
        return choice.text
    return (choice.delta if hasattr(choice, "delta") else choice.message).content


def answer(parts):
    """Of the chunks of a stream, or of the one reply."""
    choices = [choice for part in parts for choice in part.choices]
    texts = [text_of(choice) for choice in choices]
    usages = [part.usage for part in parts if part.usage is not None]
    return {
        "text": "".join(text for text in texts if text),
        "pieces": sum(bool(text) for text in texts),
        "finish_reasons": [choice.finish_reason for choice in choices if choice.finish_reason is not None],
        "models": sorted({part.model for part in parts}),
        "usages": [[usage.prompt_tokens, usage.completion_tokens, usage.total_tokens] for usage in usages],
    }


def refusal(error):
    return {
        "error": type(error).__name__,
        "status": error.status_code,
        "message": error.message,
        "param": error.param,
        "type": error.type,
    }


def ask(client, question):
    try:
        reply = create(client, question)
        return answer(list(reply) if question.get("stream") else [reply])
    except openai.APIStatusError as error:
        return refusal(error)


async def ask_async(client, question):
    try:
        reply = await create(client, question)
        return answer([part async for part in reply] if question.get("stream") else [reply])
    except openai.APIStatusError as error:
        return refusal(error)


async def main():
    given = {"base_url": sys.argv[1], "api_key": sys.argv[2], "max_retries": 0, "timeout": 60}
    questions = json.load(sys.stdin)
    with openai.OpenAI(**given) as client:
        answers = {"OpenAI": [ask(client, question) for question in questions]}
    async with openai.AsyncOpenAI(**given) as client:
        answers["AsyncOpenAI"] = [await ask_async(client, question) for question in questions]
    json.dump(answers, sys.stdout)


asyncio.run(main())
