"""Drives a running server with the official `openai` package: tools, structured output and responses, which need a model that takes tools.

    python with_openai.py --url http://127.0.0.1:8000

What needs no such model is in ../openai_client.py.
"""

import json

import openai
from checks import QUESTION, TIME, TOO_LONG, TOO_LONG_TEXT, WEATHER, City, check, equal, refused, run

TOOLS = [{"type": "function", "function": tool} for tool in (WEATHER, TIME)]
RESPONSES_TOOLS = [{"type": "function", "strict": True, **tool} for tool in (WEATHER, TIME)]
NAMED = {"type": "function", "function": {"name": "get_time"}}


class Server:
    def __init__(self, url, key):
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0, timeout=300)
        self.model = self.client.models.list().data[0].id

    def options(self, content=QUESTION, **more):
        return {"model": self.model, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 48, **more}

    def chat(self, *args, **more):
        return self.client.chat.completions.create(**self.options(*args, **more))

    def respond(self, content=QUESTION, **more):
        return self.client.responses.create(**{"model": self.model, "input": content, "temperature": 0, "max_output_tokens": 48, **more})


def calls_of(answer):
    """The names of a whole answer's calls, which must be well-formed."""
    choice = answer.choices[0]
    calls = choice.message.tool_calls or []
    assert choice.finish_reason in (["tool_calls", "length"] if calls else ["stop", "length"]), choice
    equal(len({call.id for call in calls}), len(calls), "ids of calls")
    for call in calls:
        equal(list(json.loads(call.function.arguments)), ["city"])
    return [call.function.name for call in calls]


@check
def chat(s):
    answer = s.chat("Say hello.", max_tokens=8)
    assert answer.choices[0].message.content, answer
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


@check
def stream_with_usage(s):
    parts = list(s.chat("Say hello.", max_tokens=8, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    equal(text, s.chat("Say hello.", max_tokens=8).choices[0].message.content)
    assert parts[-1].usage.completion_tokens > 0, parts[-1]


@check
def tools_auto(s):
    names = calls_of(s.chat(tools=TOOLS))
    assert set(names) <= {"get_weather", "get_time"}, names


@check
def tools_required(s):
    assert calls_of(s.chat("Good morning!", tools=TOOLS, tool_choice="required")), "no call"


@check
def tools_named(s):
    equal(set(calls_of(s.chat(tools=TOOLS, tool_choice=NAMED))), {"get_time"})


@check
def tools_none(s):
    equal(s.chat(tools=TOOLS, tool_choice="none", max_tokens=8).choices[0].message.tool_calls, None)


@check
def tools_parallel(s):
    both = "What is the weather in Paris, and what time is it in Rome? Call both tools."
    names = calls_of(s.chat(both, tools=TOOLS, tool_choice="required", max_tokens=96))
    assert names, "no call"
    alone = calls_of(s.chat(both, tools=TOOLS, tool_choice="required", max_tokens=96, parallel_tool_calls=False))
    equal(alone, names[:1])


@check
def tools_streamed(s):
    with s.client.chat.completions.stream(**s.options(tools=TOOLS, tool_choice="required")) as stream:
        arguments = "".join(event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta")
        answer = stream.get_final_completion()
    whole = s.chat(tools=TOOLS, tool_choice="required")
    equal(calls_of(answer), calls_of(whole))
    equal(arguments, "".join(call.function.arguments for call in whole.choices[0].message.tool_calls))


@check
def second_turn_with_the_tools_result(s):
    first = s.chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 degrees, sunny"}
    question = {"role": "user", "content": QUESTION}
    second = s.chat(messages=[question, message, result], tools=TOOLS)
    calls_of(second)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens, (first.usage, second.usage)


@check
def structured_output(s):
    options = s.options("Tell of Genoa.", response_format=City)
    city = s.client.chat.completions.parse(**options).choices[0].message.parsed
    assert isinstance(city, City), city
    with s.client.chat.completions.stream(**options) as stream:
        equal(stream.get_final_completion().choices[0].message.parsed, city)


@check
def tools_of_pydantic(s):
    tool = openai.pydantic_function_tool(City)
    answer = s.client.chat.completions.parse(**s.options("Tell of Genoa.", tools=[tool], tool_choice="required"))
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, City), answer


@check
def responses_whole(s):
    answer = s.respond("Say hello.", max_output_tokens=16)
    equal(answer.object, "response")
    assert answer.status in ("completed", "incomplete") and answer.output_text, answer
    equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens)


@check
def responses_streamed(s):
    events = list(s.respond("Say hello.", max_output_tokens=16, stream=True))
    equal([events[0].type, events[1].type], ["response.created", "response.in_progress"])
    equal([event.sequence_number for event in events], list(range(len(events))))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    equal(text, s.respond("Say hello.", max_output_tokens=16).output_text)
    assert events[-1].type in ("response.completed", "response.incomplete"), events[-1]
    equal(events[-1].response.output_text, text)


@check
def responses_tools(s):
    question = {"role": "user", "content": QUESTION}
    first = s.respond([question], tools=RESPONSES_TOOLS, tool_choice="required", parallel_tool_calls=False)
    call = first.output[-1]
    equal((call.type, list(json.loads(call.arguments))), ("function_call", ["city"]))
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees, sunny"}
    second = s.respond([question, *first.output, result], tools=RESPONSES_TOOLS)
    assert second.usage.input_tokens > first.usage.input_tokens, (first.usage, second.usage)


@check
def responses_previous_response_id(s):
    first = s.respond(tools=RESPONSES_TOOLS, tool_choice="required", parallel_tool_calls=False)
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "18 degrees, sunny"}
    second = s.respond([result], previous_response_id=first.id, tools=RESPONSES_TOOLS)
    equal(second.previous_response_id, first.id)
    assert second.usage.input_tokens > first.usage.input_tokens, (first.usage, second.usage)
    equal(s.client.responses.retrieve(first.id).output[-1].call_id, first.output[-1].call_id)


@check
def responses_structured_output(s):
    options = {"model": s.model, "input": "Tell of Genoa.", "temperature": 0, "max_output_tokens": 48}
    city = s.client.responses.parse(**options, text_format=City).output_parsed
    assert isinstance(city, City), city


@check
def error_of_a_wrong_model(s):
    refused(404, "model_not_found", "model", lambda: s.chat("x", model="no-such-model"))


@check
def error_of_a_prompt_that_is_too_long(s):
    error = refused(400, "context_length_exceeded", "messages", lambda: s.chat(TOO_LONG))
    assert TOO_LONG_TEXT in str(error), error


@check
def error_of_a_wrong_field(s):
    refused(400, "invalid_value", "temperature", lambda: s.chat(temperature=-1))
    refused(400, "invalid_value", "tools[0].function.name", lambda: s.chat(tools=[{"type": "function", "function": {"name": ""}}]))


@check
def responses_errors(s):
    refused(404, "model_not_found", "model", lambda: s.respond("x", model="no-such-model"))
    refused(400, "invalid_value", "temperature", lambda: s.respond(temperature=-1))
    error = refused(400, "context_length_exceeded", "input", lambda: s.respond(TOO_LONG))
    assert TOO_LONG_TEXT in str(error), error


@check
def a_model_that_does_not_embed_says_so(s):
    ask = lambda: s.client.embeddings.create(model=s.model, input="x")
    error = refused(400, "unsupported_parameter", "model", ask)
    assert "cannot embed texts" in str(error), error


if __name__ == "__main__":
    run(__doc__, Server, f"openai {openai.__version__}")
