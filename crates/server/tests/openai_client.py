"""Drives a running server with the official `openai` package and prints what is not as OpenAI's clients expect it.

    pip install openai
    python openai_client.py --url http://127.0.0.1:8000 [--api-key KEY]

Exits 0 if every check holds and 1 otherwise. The model's quality does not matter; greedy answers must repeat.
"""

import concurrent.futures
import json
import urllib.error
import urllib.request

import openai
from clients.checks import check, equal, refused, run


class Server:
    def __init__(self, url, key):
        self.url = url
        self.key = key
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def chat(self, content="Tell me a story about a fox.", **more):
        more = {"temperature": 0, "max_tokens": 24, **more}
        messages = [{"role": "user", "content": content}]
        return self.client.chat.completions.create(model=self.model, messages=messages, **more)

    def complete(self, prompt="Once upon a time", **more):
        more = {"temperature": 0, "max_tokens": 24, **more}
        return self.client.completions.create(model=self.model, prompt=prompt, **more)

    def respond(self, asked="Tell me a story about a fox.", **more):
        more = {"temperature": 0, "max_output_tokens": 24, **more}
        return self.client.responses.create(model=self.model, input=asked, **more)

    def raw(self, method, path, body=None, key=True):
        """Status and JSON of a request that the package would not send."""
        headers = {"content-type": "application/json"}
        if key and self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def content(answer, index=0):
    return answer.choices[index].message.content


@check
def models(s):
    listed = s.client.models.list().data[0]
    equal(listed.object, "model")
    equal(s.client.models.retrieve(listed.id).id, listed.id)


@check
def a_chat_answer_and_its_usage(s):
    answer = s.chat()
    equal(answer.object, "chat.completion")
    equal(answer.choices[0].message.role, "assistant")
    assert content(answer), "the answer is empty"
    assert answer.choices[0].finish_reason in ("stop", "length"), answer.choices[0].finish_reason
    usage = answer.usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    assert 1 <= usage.completion_tokens <= 24, usage
    assert answer.system_fingerprint, "no system_fingerprint"


@check
def greedy_and_seeded_answers_repeat(s):
    equal(content(s.chat()), content(s.chat()))
    seeded = lambda seed: content(s.chat(temperature=1.0, seed=seed))
    equal(seeded(7), seeded(7))


@check
def parallel_requests_change_nothing(s):
    prompts = [f"Write about the number {i}." for i in range(8)]
    alone = [content(s.chat(prompt)) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: content(s.chat(prompt)), prompts))
    equal(together, alone)


@check
def a_streamed_chat_answer(s):
    whole = s.chat()
    chunks = list(s.chat(stream=True, stream_options={"include_usage": True}))
    equal(chunks[0].choices[0].delta.role, "assistant")
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    equal("".join(texts), content(whole))
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    equal((reasons[-1], set(reasons[:-1])), (whole.choices[0].finish_reason, {None}))
    equal(chunks[-1].choices, [])
    equal(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
    equal({c.id for c in chunks}, {chunks[0].id})


@check
def several_choices(s):
    answer = s.chat(n=2)
    equal([c.index for c in answer.choices], [0, 1])
    equal(content(answer, 0), content(answer, 1), "greedy choices")
    parts = {0: "", 1: ""}
    for chunk in s.chat(n=2, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content or ""
    equal(parts, {0: content(answer, 0), 1: content(answer, 1)})


@check
def chat_logprobs(s):
    answer = s.chat(logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    equal(len(entries), answer.usage.completion_tokens)
    for entry in entries:
        equal(len(entry.top_logprobs), 3)
        assert entry.logprob <= 0, entry
        equal(entry.logprob, entry.top_logprobs[0].logprob, "greedy takes the most likely")
    text = b"".join(bytes(entry.bytes) for entry in entries)
    assert text.startswith(content(answer).encode()), (text, content(answer))


@check
def a_stop_string_ends_the_text(s):
    text = content(s.chat())
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    answer = s.chat(stop=[stop])
    equal(content(answer), text[: text.index(stop)])
    equal(answer.choices[0].finish_reason, "stop")
    streamed = "".join(c.choices[0].delta.content or "" for c in s.chat(stop=stop, stream=True))
    equal(streamed, content(answer))


@check
def a_length_limit(s):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = s.chat(**{"max_tokens": openai.omit, name: 5}, extra_body={"ignore_eos": True})
        equal((answer.usage.completion_tokens, answer.choices[0].finish_reason), (5, "length"))


@check
def a_bias_decides(s):
    token = s.raw("POST", "/tokenize", {"prompt": "Yes", "add_special_tokens": False})[1]["tokens"][0]
    answer = s.chat(max_tokens=1, logit_bias={str(token): 100}, extra_body={"return_token_ids": True})
    equal(answer.choices[0].token_ids, [token])


@check
def completions_of_every_form_of_prompt(s):
    ids = s.raw("POST", "/tokenize", {"prompt": "Once upon a time"})[1]["tokens"]
    one = s.complete()
    equal(one.object, "text_completion")
    equal(s.complete(ids).choices[0].text, one.choices[0].text)
    two = s.complete(["Once upon a time", "The sea"])
    equal([c.index for c in two.choices], [0, 1])
    equal(two.choices[0].text, one.choices[0].text)
    equal(s.complete([ids, ids[:2]]).choices[0].text, one.choices[0].text)
    streamed = "".join(c.choices[0].text for c in s.complete(stream=True))
    equal(streamed, one.choices[0].text)


@check
def completion_logprobs_and_echo(s):
    prompt = "Once upon a time"
    ids = s.raw("POST", "/tokenize", {"prompt": prompt})[1]["tokens"]
    answer = s.complete(prompt, logprobs=2, echo=True, max_tokens=4)
    choice = answer.choices[0]
    assert choice.text.startswith(prompt), choice.text
    lists = choice.logprobs
    count = len(ids) + answer.usage.completion_tokens
    lengths = [len(l) for l in (lists.tokens, lists.token_logprobs, lists.top_logprobs, lists.text_offset)]
    equal(lengths, [count] * 4)
    equal(lists.token_logprobs[0], None)
    assert all(l <= 0 for l in lists.token_logprobs[1:]), lists.token_logprobs
    prompt_only = s.complete(prompt, logprobs=2, echo=True, max_tokens=0).choices[0]
    equal(prompt_only.text, prompt)
    equal(prompt_only.logprobs.token_logprobs, lists.token_logprobs[: len(ids)])


@check
def tokenize_and_detokenize(s):
    text = "Hello 漢字 😀"
    status, answer = s.raw("POST", "/tokenize", {"prompt": text, "add_special_tokens": False})
    equal((status, answer["count"]), (200, len(answer["tokens"])))
    equal(s.raw("POST", "/detokenize", {"tokens": answer["tokens"]}), (200, {"prompt": text}))


@check
def a_client_may_leave(s):
    stream = s.chat(stream=True, max_tokens=1000, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    assert content(s.chat()), "no answer after a cancelled one"


@check
def wrong_fields_are_named(s):
    for field, value in [
        ("max_tokens", -1), ("max_tokens", 0), ("temperature", -1), ("temperature", "hot"), ("top_p", -1), ("top_p", 2),
        ("presence_penalty", 3), ("frequency_penalty", -3), ("n", 0), ("n", 129), ("seed", "x"), ("stop", 5), ("stop", ""),
        ("logit_bias", {"1": 101}), ("logit_bias", {"99999999": 1}),
    ]:
        refused(400, "invalid_value", field, lambda: s.chat(**{field: value}))
        refused(400, "invalid_value", field, lambda: s.complete(**{field: value}))
    refused(400, "invalid_value", "top_logprobs", lambda: s.chat(top_logprobs=2))
    refused(400, "invalid_value", "top_logprobs", lambda: s.chat(logprobs=True, top_logprobs=21))
    refused(400, "invalid_value", "logprobs", lambda: s.complete(logprobs=21))
    refused(400, "invalid_value", "prompt", lambda: s.complete([]))
    refused(400, "invalid_value", "stream_options", lambda: s.chat(stream_options={"include_usage": True}))
    refused(400, "invalid_value", "messages[0].content", lambda: s.chat(5))


@check
def fields_of_vllm(s):
    vllm = lambda **fields: s.complete(max_tokens=6, extra_body={"return_token_ids": True, **fields}).choices[0]
    free = vllm()
    token = free.token_ids[0]
    equal(vllm(allowed_token_ids=[token]).token_ids, [token] * 6)
    stopped = vllm(stop_token_ids=[token])
    equal((len(stopped.token_ids), stopped.stop_reason), (1, token))
    held_back = vllm(stop_token_ids=[token], min_tokens=6)
    assert token not in held_back.token_ids and len(held_back.token_ids) == 6, held_back
    equal(vllm(truncate_prompt_tokens=1).prompt_token_ids, free.prompt_token_ids[-1:])
    named = s.chat(logprobs=True, extra_body={"logprob_token_ids": [5, 6]}).choices[0].logprobs.content[0]
    equal(len(named.top_logprobs), 2)
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [part.usage.completion_tokens for part in s.chat(stream=True, stream_options=options)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > 0, counts


@check
def what_is_not_supported_is_refused(s):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    refused(400, "unsupported_parameter", "tools", lambda: s.chat(tools=[tool]))
    refused(400, "unsupported_parameter", "suffix", lambda: s.complete(suffix="the end"))
    refused(400, "unsupported_parameter", "use_beam_search", lambda: s.complete(extra_body={"use_beam_search": True}))
    refused(400, "invalid_value", "tool_choice", lambda: s.chat(tool_choice="required"))


@check
def a_response_and_its_stream(s):
    whole = s.respond()
    equal(whole.output_text, content(s.chat()))
    equal((whole.object, whole.output[0].type), ("response", "message"))
    assert whole.status in ("completed", "incomplete"), whole.status
    usage = whole.usage
    equal(usage.total_tokens, usage.input_tokens + usage.output_tokens)
    deltas, kinds = "", []
    settings = {"temperature": 0, "max_output_tokens": 24, "input": "Tell me a story about a fox."}
    with s.client.responses.stream(model=s.model, **settings) as stream:
        for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                deltas += event.delta
    equal(deltas, whole.output_text)
    equal((kinds[0], kinds[-1]), ("response.created", f"response.{whole.status}"))


@check
def a_response_in_a_form(s):
    schema = {"type": "object", "properties": {"tall": {"type": "boolean"}}, "required": ["tall"]}
    form = {"type": "json_schema", "name": "tree", "schema": {**schema, "additionalProperties": False}}
    answer = s.respond("Is it tall?", text={"format": form}, max_output_tokens=200)
    equal(list(json.loads(answer.output_text)), ["tall"])


@check
def responses_that_are_kept(s):
    first = s.respond("My name is Ann.")
    equal(s.client.responses.retrieve(first.id).output_text, first.output_text)
    items = [{"role": "user", "content": "My name is Ann."}, *[item.to_dict() for item in first.output]]
    items.append({"role": "user", "content": "Who am I?"})
    equal(s.respond("Who am I?", previous_response_id=first.id).output_text, s.respond(items).output_text)
    equal(s.client.responses.input_items.list(first.id).data[0].content[0].text, "My name is Ann.")
    s.client.responses.delete(first.id)
    refused(404, "response_not_found", None, lambda: s.client.responses.retrieve(first.id))
    field = "previous_response_id"
    refused(404, "response_not_found", field, lambda: s.respond("x", previous_response_id=first.id))
    forgotten = s.respond(store=False)
    refused(404, "response_not_found", None, lambda: s.client.responses.retrieve(forgotten.id))


@check
def what_responses_are_refused(s):
    refused(400, "unsupported_parameter", "background", lambda: s.respond(background=True))
    refused(400, "unsupported_parameter", "truncation", lambda: s.respond(truncation="auto"))
    refused(400, "invalid_value", "max_output_tokens", lambda: s.respond(max_output_tokens=0))
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    message = {"role": "user", "content": [{"type": "input_text", "text": "x"}, image]}
    refused(400, "unsupported_parameter", "input[0].content[1]", lambda: s.respond([message]))
    limit = s.client.models.list().data[0].max_model_len
    refused(400, "context_length_exceeded", "input", lambda: s.respond("word " * limit))
    failed = list(s.respond("word " * limit, stream=True))[-1]
    equal((failed.type, failed.response.error.code), ("response.failed", "context_length_exceeded"))


@check
def too_long_a_prompt(s):
    limit = s.client.models.list().data[0].max_model_len
    ids = s.raw("POST", "/tokenize", {"prompt": "a"})[1]["tokens"]
    too_long = (ids * limit)[:limit]
    error = refused(400, "context_length_exceeded", "prompt", lambda: s.complete(too_long))
    equal((error.body["n_prompt_tokens"], error.body["n_ctx"]), (limit, limit))
    refused(400, "context_length_exceeded", "messages", lambda: s.chat("word " * limit))


@check
def unknown_models_and_routes(s):
    other = {"model": "no-such-model", "messages": [{"role": "user", "content": "x"}]}
    refused(404, "model_not_found", "model", lambda: s.client.chat.completions.create(**other))
    refused(404, "model_not_found", "model", lambda: s.client.models.retrieve("no-such-model"))
    status, answer = s.raw("POST", "/v1/no-such-route", {})
    equal((status, answer["error"]["code"]), (404, "not_found"))
    status, answer = s.raw("GET", "/v1/chat/completions")
    equal((status, answer["error"]["code"]), (405, "method_not_allowed"))


@check
def bodies_that_are_wrong_as_a_whole(s):
    status, answer = s.raw("POST", "/v1/chat/completions", b"{not json")
    equal((status, answer["error"]["code"]), (400, "invalid_json"))
    status, answer = s.raw("POST", "/v1/chat/completions", b" " * (10 << 20))
    equal((status, answer["error"]["code"]), (413, "request_too_large"))


@check
def a_wrong_key(s):
    status, answer = s.raw("GET", "/v1/models", key=False)
    equal(status, 401 if s.key else 200, "without a key")
    if s.key:
        equal(answer["error"]["code"], "invalid_api_key")
        wrong = openai.OpenAI(base_url=f"{s.url}/v1", api_key=s.key + "x", max_retries=0)
        refused(401, "invalid_api_key", None, wrong.models.list)
    equal(s.raw("GET", "/health", key=False)[0], 200)
    equal(s.raw("GET", "/version", key=False)[0], 200)


if __name__ == "__main__":
    run(__doc__, Server, f"openai {openai.__version__}")
