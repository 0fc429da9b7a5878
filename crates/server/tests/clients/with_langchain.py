"""Drives a running server with `langchain-openai`.

    python with_langchain.py --url http://127.0.0.1:8000
"""

import importlib.metadata

import openai
from checks import QUESTION, TOO_LONG, TOO_LONG_TEXT, City, check, equal, refused, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings


@tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"18 degrees and sunny in {city}"


@tool
def get_time(city: str) -> str:
    """Tells the time of a city."""
    return f"noon in {city}"


TOOLS = [get_weather, get_time]


class Server:
    def __init__(self, url, key):
        self.common = {"base_url": f"{url}/v1", "api_key": key or "none", "max_retries": 0}
        self.model = openai.OpenAI(**self.common).models.list().data[0].id

    def chat(self, **more):
        return ChatOpenAI(model=self.model, timeout=300, **{"temperature": 0, "max_tokens": 48, **self.common, **more})


def calls_of(message):
    reasons = ["tool_calls", "length"] if message.tool_calls else ["stop", "length"]
    assert message.response_metadata["finish_reason"] in reasons, message
    equal(message.invalid_tool_calls, [])
    for call in message.tool_calls:
        equal(list(call["args"]), ["city"])
    return [call["name"] for call in message.tool_calls]


@check
def chat(s):
    message = s.chat(max_tokens=8).invoke("Say hello.")
    assert message.content and message.usage_metadata["output_tokens"] > 0, message


@check
def stream_with_usage(s):
    model = s.chat(max_tokens=8, stream_usage=True)
    parts = list(model.stream("Say hello."))
    whole = sum(parts[1:], parts[0])
    told = model.invoke("Say hello.")
    equal((whole.content, whole.usage_metadata), (told.content, told.usage_metadata))


@check
def tools_auto(s):
    assert set(calls_of(s.chat().bind_tools(TOOLS).invoke(QUESTION))) <= {"get_weather", "get_time"}


@check
def tools_required(s):
    assert calls_of(s.chat().bind_tools(TOOLS, tool_choice="any").invoke("Good morning!")), "no call"


@check
def tools_named(s):
    equal(set(calls_of(s.chat().bind_tools(TOOLS, tool_choice="get_time", strict=True).invoke(QUESTION))), {"get_time"})


@check
def tools_parallel(s):
    both = "What is the weather in Paris, and what time is it in Rome? Call both tools."
    ask = lambda **more: calls_of(s.chat(max_tokens=96).bind_tools(TOOLS, tool_choice="any", **more).invoke(both))
    equal(ask(parallel_tool_calls=False), ask()[:1])


@check
def tools_streamed(s):
    model = s.chat().bind_tools(TOOLS, tool_choice="any")
    parts = list(model.stream(QUESTION))
    equal(calls_of(sum(parts[1:], parts[0])), calls_of(model.invoke(QUESTION)))


@check
def second_turn_with_the_tools_result(s):
    first = s.chat().bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False).invoke(QUESTION)
    result = ToolMessage("18 degrees, sunny", tool_call_id=first.tool_calls[0]["id"])
    second = s.chat().bind_tools(TOOLS).invoke([HumanMessage(QUESTION), first, result])
    calls_of(second)
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"], (first, second)


@check
def structured_output(s):
    for method in ("json_schema", "function_calling"):
        city = s.chat().with_structured_output(City, method=method).invoke("Tell of Genoa.")
        assert isinstance(city, City), (method, city)
    told = s.chat().with_structured_output(method="json_mode").invoke('Answer with {"name": "Genoa"}, and nothing else.')
    assert isinstance(told, dict), told


@check
def text_completion(s):
    assert OpenAI(model=s.model, max_tokens=8, **s.common).invoke("Once upon a time")


@check
def responses_whole_and_streamed(s):
    model = s.chat(use_responses_api=True, max_tokens=16)
    whole = model.invoke("Say hello.")
    assert whole.text and whole.usage_metadata["output_tokens"] > 0, whole
    equal("".join(part.text for part in model.stream("Say hello.")), whole.text)


@check
def responses_tools_and_previous_response_id(s):
    model = s.chat(use_responses_api=True, use_previous_response_id=True)
    first = model.bind_tools(TOOLS, tool_choice="required", parallel_tool_calls=False).invoke(QUESTION)
    equal(list(first.tool_calls[0]["args"]), ["city"])
    result = ToolMessage("18 degrees, sunny", tool_call_id=first.tool_calls[0]["id"])
    second = model.bind_tools(TOOLS).invoke([HumanMessage(QUESTION), first, result])
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"], (first, second)


@check
def responses_structured_output(s):
    city = s.chat(use_responses_api=True).with_structured_output(City).invoke("Tell of Genoa.")
    assert isinstance(city, City), city


@check
def error_of_a_wrong_model(s):
    refused(404, "model_not_found", "model", lambda: ChatOpenAI(model="no-such-model", **s.common).invoke("x"))


@check
def error_of_a_prompt_that_is_too_long(s):
    error = refused(400, "context_length_exceeded", "messages", lambda: s.chat().invoke(TOO_LONG))
    assert TOO_LONG_TEXT in str(error), error


@check
def error_of_a_wrong_field(s):
    refused(400, "invalid_value", "temperature", lambda: s.chat(temperature=-1).invoke("x"))


@check
def a_model_that_does_not_embed_says_so(s):
    embeddings = OpenAIEmbeddings(model=s.model, check_embedding_ctx_length=False, **s.common)
    refused(400, "unsupported_parameter", "model", lambda: embeddings.embed_query("x"))


if __name__ == "__main__":
    run(__doc__, Server, f"langchain-openai {importlib.metadata.version('langchain-openai')}")
