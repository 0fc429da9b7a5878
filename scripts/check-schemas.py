#!/usr/bin/env python3
"""Asks a running server for answers held to 200 JSON schemas and to tools, and judges them by the package `jsonschema`.

    pip install jsonschema
    scripts/check-schemas.py --url http://127.0.0.1:8000 [--seeds 5] [--schemas 200] [--free] [--tools]

Every finished answer must validate; one that was cut off by its limit is counted apart. `--free` asks for the same without holding the
answers, for comparison, `--tools` for forced tool calls in place of `response_format`. Exits 1 if a finished answer that is held does not
validate.
"""
import argparse
import concurrent.futures
import itertools
import json
import random
import re
import urllib.request

import jsonschema

DICE = random.Random(7)
TEXTS = [
    {"type": "string", "maxLength": 12},
    {"type": "string", "minLength": 3, "maxLength": 9},
    {"type": "string", "pattern": "^[A-Z][a-z]{2,8}$"},
    {"type": "string", "pattern": "^(\\d{3}-)?\\d{4}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "hostname"},
    {"enum": ["red", "green", "dark \"blue\"", "漢字"]},
    {"const": "a fixed\ntext"},
]
NUMBERS = [
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000},
    {"type": "number", "minimum": 0.5, "maximum": 2.25},
    {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 1},
    {"enum": [1, 2.5, 1000000]},
    {"const": -17},
]
OTHERS = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"], "maxLength": 10},
    {"enum": [None, True, "x", 3]},
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"const": "none"}]},
    {"oneOf": [{"type": "boolean"}, {"type": "string", "maxLength": 5}]},
    {"allOf": [{"type": "integer", "minimum": 10}, {"type": "integer", "maximum": 30}]},
]
LEAVES = TEXTS + NUMBERS + OTHERS


def leaf():
    return DICE.choice(LEAVES)


def lists():
    short = {"minItems": 1, "maxItems": 3}
    yield {"type": "array", "items": leaf(), **short}
    yield {"type": "array", "prefixItems": [leaf(), leaf()], "items": False, "minItems": 2}
    yield {"type": "array", "prefixItems": [leaf()], "items": leaf(), "minItems": 1, "maxItems": 3}
    yield {"type": "array", "items": {"type": "array", "items": leaf(), "maxItems": 2}, **short}
    yield {"type": "array", "items": closed({"a": leaf(), "b": leaf()}, ["a"]), **short}


def closed(properties, required=None):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def objects():
    yield closed({"name": DICE.choice(TEXTS), "value": DICE.choice(NUMBERS)})
    yield closed({"a": leaf(), "b": leaf(), "c": leaf()}, ["b"])
    yield closed({"outer": closed({"inner": closed({"leaf": leaf()})}), "list": next(lists())})
    yield {"type": "object", "additionalProperties": DICE.choice(NUMBERS), "minProperties": 1, "maxProperties": 2}
    yield {"type": "object", "patternProperties": {"^x_[a-z]{1,3}$": leaf()}, "additionalProperties": False, "minProperties": 1,
           "maxProperties": 2}
    yield {"type": "object", "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["id"],
           "additionalProperties": {"type": "string", "maxLength": 6}, "maxProperties": 3}
    yield {**closed({"head": {"$ref": "#/$defs/point"}, "tail": {"$ref": "#/$defs/point"}}),
           "$defs": {"point": closed({"x": DICE.choice(NUMBERS), "y": DICE.choice(NUMBERS)})}}
    yield {"$ref": "#/$defs/tree", "$defs": {"tree": closed(
        {"value": DICE.choice(NUMBERS), "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}})}}
    yield {"anyOf": [closed({"kind": {"const": "circle"}, "radius": DICE.choice(NUMBERS)}),
                     closed({"kind": {"const": "square"}, "side": DICE.choice(NUMBERS)})]}
    yield {"oneOf": [closed({"kind": {"const": "text"}, "text": DICE.choice(TEXTS)}),
                     closed({"kind": {"const": "number"}, "number": DICE.choice(NUMBERS)})]}
    yield {"type": "object", "title": "T", "description": "D", "$schema": "https://json-schema.org/draft/2020-12/schema",
           "properties": {"a": {**leaf(), "description": "a leaf", "default": 1}}, "required": ["a"], "additionalProperties": False}


def schemas(count, objects_only):
    made = []
    plain = iter([] if objects_only else LEAVES)
    while len(made) < count:
        made.extend(itertools.islice(plain, 3))
        made.extend(objects())
        if not objects_only:
            made.extend(lists())
    return made[:count]


class Server:
    def __init__(self, url):
        self.url = url.rstrip("/")

    def ask(self, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + "/v1/chat/completions", data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=1200) as response:
            return json.loads(response.read())["choices"][0]


def fenced(text):
    """What a free answer means: the JSON in a fenced block, or all of it."""
    found = re.search(r"```(?:json)?\s*(.*?)```", text, re.S)
    return found.group(1) if found else text


def judge(server, schema, seed, options):
    """'valid', 'cut' or what is wrong."""
    ask = "Make up an example of JSON that this schema validates, in one line and as short as can be. Answer with the JSON alone.\n"
    body = {"messages": [{"role": "user", "content": ask + json.dumps(schema, ensure_ascii=False)}], "max_tokens": 200,
            "temperature": 1, "seed": seed}
    if options.tools:
        body["messages"][0]["content"] = "Call the tool save with something short that you make up."
        body["tools"] = [{"type": "function", "function": {"name": "save", "description": "Saves.", "parameters": schema}}]
        body["tool_choice"] = "auto" if options.free else "required"
    elif not options.free:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    choice = server.ask(body)
    if options.tools:
        calls = choice["message"].get("tool_calls") or []
        text = calls[0]["function"]["arguments"] if calls else ""
    else:
        text = choice["message"]["content"]
    if choice["finish_reason"] == "length":
        return "cut"
    try:
        value = json.loads(fenced(text) if options.free else text)
        # Formats are judged too.
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(value)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{str(error).splitlines()[0]}: {text!r} for {json.dumps(schema)}"
    return "valid"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--tools", action="store_true")
    options = parser.parse_args()
    server = Server(options.url)
    work = [(schema, seed) for schema in schemas(options.schemas, options.tools) for seed in range(options.seeds)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda pair: judge(server, *pair, options), work))
    wrong = [result for result in results if result not in ("valid", "cut")]
    valid, cut = results.count("valid"), results.count("cut")
    for result in wrong[: 3 if options.free else 20]:
        print(result)
    finished = len(results) - cut
    print(f"{len(results)} answers: {finished} finished, of which {valid} validate ({100 * valid / max(finished, 1):.1f} %); {cut} cut off")
    raise SystemExit(1 if wrong and not options.free else 0)


main()
