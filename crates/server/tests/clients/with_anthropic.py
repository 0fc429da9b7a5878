"""Drives a running server with the official `anthropic` package: what needs a model that takes tools.

    python with_anthropic.py --url http://127.0.0.1:8000

What needs no such model is in ../anthropic_client.py.
"""

import anthropic
from checks import QUESTION, TIME, TOO_LONG, TOO_LONG_TEXT, WEATHER, City, check, equal, fails, run

TOOLS = [{"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]} for tool in (WEATHER, TIME)]
ASKED = [{"role": "user", "content": QUESTION}]


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"18 degrees and sunny in {city}"


class Server:
    def __init__(self, url, key):
        self.client = anthropic.Anthropic(base_url=url, api_key=key or "none", max_retries=0, timeout=300)
        self.model = self.client.models.list().data[0].id

    def options(self, messages=ASKED, **more):
        messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        # The package has no temperature any more.
        return {"model": self.model, "messages": messages, "max_tokens": 48, "extra_body": {"temperature": 0}, **more}

    def ask(self, *args, **more):
        return self.client.messages.create(**self.options(*args, **more))


def inputs_of(answer):
    """The calls of an answer, as (name, names of the inputs)."""
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason in (["tool_use", "max_tokens"] if calls else ["end_turn", "max_tokens"]), answer
    equal(len({call.id for call in calls}), len(calls), "ids of calls")
    return [(call.name, list(call.input)) for call in calls]


@check
def tools_auto(s):
    assert {name for name, _ in inputs_of(s.ask(tools=TOOLS))} <= {"get_weather", "get_time"}


@check
def tools_any(s):
    calls = inputs_of(s.ask("Good morning!", tools=TOOLS, tool_choice={"type": "any"}))
    assert calls and all(names == ["city"] for _, names in calls), calls


@check
def tools_parallel(s):
    both = "What is the weather in Paris, and what time is it in Rome? Call both tools."
    calls = inputs_of(s.ask(both, tools=TOOLS, tool_choice={"type": "any"}, max_tokens=96))
    alone = inputs_of(s.ask(both, tools=TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_tokens=96))
    equal(alone, calls[:1])


@check
def tools_streamed(s):
    choice = {"type": "any", "disable_parallel_tool_use": True}
    with s.client.messages.stream(**s.options(tools=TOOLS, tool_choice=choice)) as stream:
        pieces = "".join(event.partial_json for event in stream if event.type == "input_json")
        call = stream.get_final_message().content[-1]
    whole = s.ask(tools=TOOLS, tool_choice=choice).content[-1]
    equal((call.name, call.input), (whole.name, whole.input))
    assert whole.input["city"] in pieces, pieces


@check
def the_packages_own_loop_of_tools(s):
    runner = s.client.beta.messages.tool_runner(**s.options(tools=[get_weather]), max_iterations=3)
    answers = list(runner)
    assert 1 <= len(answers) <= 3 and answers[-1].content, answers


@check
def structured_output(s):
    answer = s.client.messages.parse(**s.options("Tell of Genoa."), output_format=City)
    assert isinstance(answer.parsed_output, City), answer


@check
def error_of_a_prompt_that_is_too_long(s):
    error = fails(400, lambda: s.ask(TOO_LONG))
    equal(error.body["error"]["type"], "invalid_request_error")
    assert "prompt is too long: " in str(error) and TOO_LONG_TEXT in str(error), error


@check
def error_of_a_wrong_field(s):
    for field, value in [("max_tokens", -1), ("tool_choice", {"type": "some"}), ("extra_body", {"temperature": -1})]:
        error = fails(400, lambda: s.ask(tools=TOOLS, **{field: value}))
        assert (field if field != "extra_body" else "temperature") in str(error), error


if __name__ == "__main__":
    run(__doc__, Server, f"anthropic {anthropic.__version__}")
