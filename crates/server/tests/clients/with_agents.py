"""Drives a running server with `openai-agents`, over chat completions and over responses.

    python with_agents.py --url http://127.0.0.1:8000
"""

import asyncio
import functools
import importlib.metadata

import agents
import openai
from checks import QUESTION, TOO_LONG, TOO_LONG_TEXT, City, check, equal, refused, run

agents.set_tracing_disabled(True)


@agents.function_tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"18 degrees and sunny in {city}"


@agents.function_tool
def get_time(city: str) -> str:
    """Tells the time of a city."""
    return f"noon in {city}"


TOOLS = [get_weather, get_time]


class Server:
    def __init__(self, url, key):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0, timeout=300)
        self.name = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none").models.list().data[0].id
        self.models = {
            "chat": lambda name: agents.OpenAIChatCompletionsModel(name or self.name, client),
            "responses": lambda name: agents.OpenAIResponsesModel(name or self.name, client),
        }

    def agent(self, protocol, name=None, output_type=None, tools=(), tool_use_behavior="run_llm_again", **settings):
        settings = agents.ModelSettings(**{"temperature": 0, "max_tokens": 48, "include_usage": True, **settings})
        more = {"output_type": output_type, "tools": list(tools), "tool_use_behavior": tool_use_behavior}
        return agents.Agent("Guide", instructions="Be brief.", model=self.models[protocol](name), model_settings=settings, **more)


# The connections of a client belong to one event loop.
LOOP = asyncio.new_event_loop()


def run_agent(*args, **more):
    return LOOP.run_until_complete(agents.Runner.run(*args, **more))


def over_both_protocols(function):
    """Makes two checks of a function of a server and an agent's protocol."""
    for protocol in ("chat", "responses"):
        one = functools.partial(function, protocol=protocol)
        one.__name__ = f"{protocol}_{function.__name__}"
        check(one)


def names_of_calls(result):
    return [item.raw_item.name for item in result.new_items if item.type == "tool_call_item"]


@over_both_protocols
def whole(s, protocol):
    result = run_agent(s.agent(protocol), "Say hello.")
    assert result.final_output and result.raw_responses[0].usage.output_tokens > 0, result


@over_both_protocols
def streamed_with_usage(s, protocol):
    async def stream():
        result = agents.Runner.run_streamed(s.agent(protocol), "Say hello.")
        raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
        return result, "".join(event.delta for event in raw if event.type == "response.output_text.delta")

    result, text = LOOP.run_until_complete(stream())
    equal(text, result.final_output)
    assert result.raw_responses[0].usage.output_tokens > 0, result.raw_responses


@over_both_protocols
def tools_required(s, protocol):
    agent = s.agent(protocol, tool_choice="required", tools=TOOLS, tool_use_behavior="stop_on_first_tool")
    result = run_agent(agent, QUESTION)
    assert names_of_calls(result), result


@over_both_protocols
def tools_named(s, protocol):
    agent = s.agent(protocol, tool_choice="get_time", tools=TOOLS, tool_use_behavior="stop_on_first_tool")
    result = run_agent(agent, QUESTION)
    equal(set(names_of_calls(result)), {"get_time"})
    assert "noon in " in result.final_output, result


@over_both_protocols
def a_turn_with_the_tools_result(s, protocol):
    """The model is made to call, then answers as it likes, which may be with more calls."""
    agent = s.agent(protocol, tool_choice="required", parallel_tool_calls=False, tools=[get_weather])
    try:
        result = run_agent(agent, QUESTION, max_turns=3)
        assert len(result.raw_responses) > 1, result
    except agents.MaxTurnsExceeded as error:
        equal(len(error.run_data.raw_responses), 3)


@over_both_protocols
def structured_output(s, protocol):
    result = run_agent(s.agent(protocol, output_type=City, max_tokens=96), "Tell of Genoa.")
    assert isinstance(result.final_output, City), result


@over_both_protocols
def error_of_a_wrong_model(s, protocol):
    refused(404, "model_not_found", "model", lambda: run_agent(s.agent(protocol, "no-such-model"), "x"))


@over_both_protocols
def error_of_a_prompt_that_is_too_long(s, protocol):
    field = {"chat": "messages", "responses": "input"}[protocol]
    error = refused(400, "context_length_exceeded", field, lambda: run_agent(s.agent(protocol), TOO_LONG))
    assert TOO_LONG_TEXT in str(error), error


@over_both_protocols
def error_of_a_wrong_field(s, protocol):
    refused(400, "invalid_value", "temperature", lambda: run_agent(s.agent(protocol, temperature=-1), "x"))


@check
def responses_previous_response_id(s):
    first = run_agent(s.agent("responses"), "Say hello.")
    second = run_agent(s.agent("responses"), "Once more.", previous_response_id=first.last_response_id)
    assert second.raw_responses[0].usage.input_tokens > first.raw_responses[0].usage.input_tokens, second


if __name__ == "__main__":
    run(__doc__, Server, f"openai-agents {importlib.metadata.version('openai-agents')}")
