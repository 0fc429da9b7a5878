"""Drives a running server with LiteLLM, as a provider of OpenAI's, of vLLM's and of Anthropic's protocol.

    python with_litellm.py --url http://127.0.0.1:8000
"""

import asyncio
import importlib.metadata
import json
import os

# The prices of models are not asked for on the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm
import openai
from checks import QUESTION, TIME, TOO_LONG, WEATHER, City, check, equal, fails, run

TOOLS = [{"type": "function", "function": tool} for tool in (WEATHER, TIME)]
NAMED = {"type": "function", "function": {"name": "get_time"}}
litellm.suppress_debug_info = True
litellm.enable_json_schema_validation = True


class Server:
    def __init__(self, url, key):
        self.url = url
        self.key = key or "none"
        self.model = openai.OpenAI(base_url=f"{url}/v1", api_key=self.key).models.list().data[0].id

    def options(self, provider="hosted_vllm", **more):
        base = self.url if provider == "anthropic" else f"{self.url}/v1"
        common = {"api_base": base, "api_key": self.key, "temperature": 0, "max_retries": 0, "timeout": 300}
        return {"model": f"{provider}/{self.model}", **common, **more}

    def chat(self, content=QUESTION, provider="hosted_vllm", **more):
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        return litellm.completion(messages=messages, **self.options(provider, **{"max_tokens": 48, **more}))


def calls_of(answer):
    calls = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason in (["tool_calls", "length"] if calls else ["stop", "length"]), answer
    for call in calls:
        equal(list(json.loads(call.function.arguments)), ["city"])
    return [call.function.name for call in calls]


@check
def chat_as_every_provider(s):
    texts = [s.chat("Say hello.", provider, max_tokens=8).choices[0].message.content for provider in ("hosted_vllm", "openai", "anthropic")]
    equal(texts, [texts[0]] * 3)
    assert texts[0], "the answer is empty"


@check
def stream_with_usage(s):
    for provider in ("hosted_vllm", "anthropic"):
        parts = list(s.chat("Say hello.", provider, max_tokens=8, stream=True, stream_options={"include_usage": True}))
        whole = s.chat("Say hello.", provider, max_tokens=8)
        built = litellm.stream_chunk_builder(parts)
        equal(built.choices[0].message.content, whole.choices[0].message.content)
        equal(parts[-1].usage.completion_tokens, whole.usage.completion_tokens)


@check
def tools_auto(s):
    assert set(calls_of(s.chat(tools=TOOLS))) <= {"get_weather", "get_time"}


@check
def tools_required(s):
    for provider in ("hosted_vllm", "anthropic"):
        assert calls_of(s.chat("Good morning!", provider, tools=TOOLS, tool_choice="required")), "no call"


@check
def tools_named(s):
    equal(set(calls_of(s.chat(tools=TOOLS, tool_choice=NAMED))), {"get_time"})


@check
def tools_parallel(s):
    both = "What is the weather in Paris, and what time is it in Rome? Call both tools."
    names = calls_of(s.chat(both, tools=TOOLS, tool_choice="required", max_tokens=96))
    equal(calls_of(s.chat(both, tools=TOOLS, tool_choice="required", max_tokens=96, parallel_tool_calls=False)), names[:1])


@check
def tools_streamed(s):
    parts = list(s.chat(tools=TOOLS, tool_choice="required", stream=True))
    equal(calls_of(litellm.stream_chunk_builder(parts)), calls_of(s.chat(tools=TOOLS, tool_choice="required")))


@check
def second_turn_with_the_tools_result(s):
    for provider in ("hosted_vllm", "anthropic"):
        message = s.chat(QUESTION, provider, tools=TOOLS, tool_choice="required", parallel_tool_calls=False).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 degrees, sunny"}
        second = s.chat([{"role": "user", "content": QUESTION}, message, result], provider, tools=TOOLS)
        equal(second.choices[0].message.role, "assistant")


@check
def structured_output(s):
    for provider in ("hosted_vllm", "openai"):
        text = s.chat("Tell of Genoa.", provider, response_format=City).choices[0].message.content
        City.model_validate_json(text)


@check
def text_completion(s):
    answer = litellm.text_completion(prompt="Once upon a time", max_tokens=8, **s.options("text-completion-openai"))
    assert answer.choices[0].text, answer


@check
def messages_whole(s):
    ask = litellm.anthropic.messages.acreate
    options = s.options("anthropic", max_tokens=8, messages=[{"role": "user", "content": "Say hello."}])
    del options["max_retries"]
    answer = asyncio.run(ask(**options))
    equal((answer["type"], answer["content"][0]["type"]), ("message", "text"))


@check
def responses_whole(s):
    options = s.options("openai")
    del options["max_retries"]
    answer = litellm.responses(input="Say hello.", max_output_tokens=16, **options)
    equal(answer.object, "response")
    assert answer.output[-1].content[0].text, answer


@check
def responses_streamed(s):
    options = s.options("openai")
    del options["max_retries"]
    types = [event.type for event in litellm.responses(input="Say hello.", max_output_tokens=16, stream=True, **options)]
    equal(types[0], "response.created")
    assert types[-1] in ("response.completed", "response.incomplete"), types


@check
def error_of_a_wrong_model(s):
    for provider in ("hosted_vllm", "anthropic"):
        equal(type(fails(404, lambda: s.chat("x", provider, model=f"{provider}/no-such-model"))), litellm.NotFoundError)


@check
def error_of_a_prompt_that_is_too_long(s):
    for provider in ("hosted_vllm", "openai", "anthropic"):
        equal(type(fails(400, lambda: s.chat(TOO_LONG, provider))), litellm.ContextWindowExceededError, provider)


@check
def error_of_a_wrong_field(s):
    assert "temperature" in str(fails(400, lambda: s.chat(temperature=-1)))


@check
def a_model_that_does_not_embed_says_so(s):
    assert "cannot embed texts" in str(fails(400, lambda: litellm.embedding(input=["x"], **s.options("openai"))))


if __name__ == "__main__":
    run(__doc__, Server, f"litellm {importlib.metadata.version('litellm')}")
