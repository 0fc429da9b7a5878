"""Drives a running server with the official `anthropic` package and prints what is not as its users expect it.

    pip install anthropic
    tallow serve --chat-template crates/server/tests/hermes.jinja
    python anthropic_client.py --url http://127.0.0.1:8000 [--api-key KEY]

Exits 0 if every check holds and 1 otherwise. The model's quality does not matter; greedy answers must repeat.
"""

import json

import anthropic
from clients.checks import check, equal, run

ADD = {
    "name": "add",
    "description": "Adds two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer", "enum": [2]}, "b": {"type": "integer", "enum": [3]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}


class Server:
    def __init__(self, url, key):
        self.url, self.key = url, key
        self.client = self.connect(api_key=key or "none")
        self.model = self.client.models.list().data[0].id

    def connect(self, **credentials):
        return anthropic.Anthropic(base_url=self.url, max_retries=0, timeout=120, **credentials)

    def body(self, content="Tell me a story about a fox.", **more):
        messages = [{"role": "user", "content": content}]
        # The package has no temperature, which the API once had.
        extra = {"temperature": 0}
        return {"model": self.model, "max_tokens": 24, "messages": messages, "extra_body": extra, **more}

    def ask(self, *args, **more):
        return self.client.messages.create(**self.body(*args, **more))


def refused(error, start, call):
    """The call fails with this class of error, and a message that begins so."""
    try:
        call()
    except error as e:
        equal((e.body["type"], e.body["request_id"]), ("error", e.request_id))
        message = e.body["error"]["message"]
        assert message.startswith(start), message
        return e
    raise AssertionError(f"was not refused with {error.__name__}")


def without_ids(message):
    """The message as JSON, without the ids that each answer has of its own, and without telling what was in the cache: the
    second of two requests finds what the first has left there."""
    told = message.model_dump(mode="json", exclude_none=True)
    told["usage"]["input_tokens"] += told["usage"].pop("cache_read_input_tokens", 0)
    unique = told["id"].removeprefix("msg_")
    return json.loads(json.dumps(told).replace(unique, "ID"))


def both(s, *args, **more):
    """The whole answer; the streamed one must be the same."""
    whole = s.ask(*args, **more)
    with s.client.messages.stream(**s.body(*args, **more)) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    # The package keeps the texts of a stream under another field too.
    told = without_ids(streamed)
    for block in told["content"]:
        block.pop("parsed_output", None)
    equal(told, without_ids(whole))
    equal(text, "".join(block.text for block in whole.content if block.type == "text"))
    return whole


@check
def models(s):
    listed = s.client.models.list()
    equal((listed.has_more, listed.data[0].type, listed.first_id), (False, "model", s.model))
    model = s.client.models.retrieve(s.model)
    equal(model, listed.data[0])
    assert model.created_at.year > 2000 and model.max_input_tokens > 0, model


@check
def an_answer_and_its_usage(s):
    answer = both(s)
    equal((answer.type, answer.role, answer.model), ("message", "assistant", s.model))
    assert answer.content[0].text, "the answer is empty"
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer.stop_reason
    assert 1 <= answer.usage.output_tokens <= 24 and answer.usage.input_tokens > 0, answer.usage
    assert answer._request_id, "no request-id"
    equal(s.ask().content, answer.content)


@check
def any_model_of_anthropics_is_the_one_that_is_loaded(s):
    answer = s.ask(model="claude-opus-5")
    equal((answer.model, answer.content), ("claude-opus-5", s.ask().content))


@check
def a_stream_of_events(s):
    kinds = [event.type for event in s.client.messages.create(**s.body(stream=True))]
    equal((kinds[0], kinds[1], kinds[-2:]), ("message_start", "content_block_start", ["message_delta", "message_stop"]))
    equal(kinds.count("content_block_start"), kinds.count("content_block_stop"))


@check
def a_stop_sequence_ends_the_text(s):
    text = s.ask().content[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    answer = both(s, stop_sequences=[stop])
    told = "".join(block.text for block in answer.content)
    equal((told, answer.stop_sequence), (text[: text.index(stop)], stop))
    equal(answer.stop_reason, "stop_sequence")


@check
def a_begun_answer_is_continued(s):
    begun = s.body()["messages"] + [{"role": "assistant", "content": "Once upon a time, there was"}]
    counted = [s.client.messages.count_tokens(model=s.model, messages=m).input_tokens for m in (begun, begun[:1])]
    answer = both(s, messages=begun)
    equal(answer.usage.input_tokens + answer.usage.cache_read_input_tokens, counted[0])
    assert counted[0] > counted[1], counted


@check
def a_tool_is_called_and_its_result_is_read(s):
    choice = {"type": "tool", "name": "add", "disable_parallel_tool_use": True}
    answer = both(s, "2+3?", tools=[ADD], tool_choice=choice, max_tokens=100)
    call = answer.content[-1]
    equal((call.type, call.name, call.input), ("tool_use", "add", {"a": 2, "b": 3}))
    equal(answer.stop_reason, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "5"}]}
    messages = s.body("2+3?")["messages"]
    messages += [answer.to_param(), {"role": "user", "content": [result]}]
    final = both(s, messages=messages, tools=[ADD])
    read = lambda usage: usage.input_tokens + usage.cache_read_input_tokens
    assert read(final.usage) > read(answer.usage), final.usage


@check
def a_tool_call_that_is_cut_off(s):
    choice = {"type": "tool", "name": "add", "disable_parallel_tool_use": True}
    reasons = set()
    for max_tokens in (8, 12, 16, 20, 24, 100):
        answer = both(s, "2+3?", tools=[ADD], tool_choice=choice, max_tokens=max_tokens)
        reasons.add(answer.stop_reason)
    equal(reasons, {"max_tokens", "tool_use"})


@check
def an_answer_is_held_to_a_schema(s):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "enum": [7]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    answer = both(s, output_config={"format": {"type": "json_schema", "schema": schema}}, max_tokens=60)
    # The bundled model may write spaces up to the limit.
    text = answer.content[0].text
    if answer.stop_reason == "end_turn":
        equal(json.loads(text), {"n": 7})
    assert '{"n":7}'.startswith("".join(text.split())), text


@check
def thinking_in_every_form(s):
    for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}, {"type": "disabled"}):
        s.ask(thinking=thinking)
    s.client.beta.messages.create(**s.body(thinking={"type": "adaptive"}), betas=["interleaved-thinking-2025-05-14"])


@check
def tokens_are_counted(s):
    system = [{"type": "text", "text": "Be terse.", "cache_control": {"type": "ephemeral"}}]
    more = {"system": system, "tools": [ADD]}
    sent = {key: value for key, value in s.body(**more).items() if key != "max_tokens"}
    counted = s.client.messages.count_tokens(**sent).input_tokens
    usage = s.ask(**more).usage
    equal(counted, usage.input_tokens + usage.cache_read_input_tokens)


@check
def what_is_wrong(s):
    refused(anthropic.BadRequestError, "messages is []", lambda: s.ask(messages=[]))
    refused(anthropic.BadRequestError, "temperature is 200", lambda: s.ask(extra_body={"temperature": 200}))
    image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/a.png"}}
    refused(anthropic.BadRequestError, "messages[0].content[0] is a block", lambda: s.ask([image]))
    refused(anthropic.NotFoundError, "the model \"gpt-9\"", lambda: s.ask(model="gpt-9"))
    long = "word " * 400_000
    refused(anthropic.BadRequestError, "prompt is too long: ", lambda: s.ask(long))
    refused(anthropic.ContentTooLargeError, "the body is larger", lambda: s.ask(long * 3))


@check
def keys(s):
    if not s.key:
        return
    equal(s.connect(auth_token=s.key).models.list().data[0].id, s.model)
    wrong = s.connect(api_key=s.key + "x")
    refused(anthropic.AuthenticationError, "the API key is wrong", wrong.models.list)


if __name__ == "__main__":
    run(__doc__, Server, f"anthropic {anthropic.__version__}")
