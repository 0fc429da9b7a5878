#!/usr/bin/env python3
"""Decode tokens a second with and without a schema, in turns, on a running server: alone, and in a batch of 8 of which one is held.

usage: benches/constraints.py --url http://127.0.0.1:8000 [--rounds 5] [--tokens 200]
"""
import argparse
import concurrent.futures
import json
import statistics
import time
import urllib.request

SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["id", "name", "tags"],
        "additionalProperties": False,
    },
}


def rate(url, tokens, held):
    """Tokens a second behind the first one."""
    body = {
        "messages": [{"role": "user", "content": "List a thousand books as JSON."}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,
    }
    if held:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    times = []
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if b'"token_ids":[' in line:
                times.append(time.monotonic())
    if len(times) < tokens // 2:
        raise SystemExit(f"{len(times)} tokens of {tokens} came")
    return (len(times) - 1) / (times[-1] - times[0])


def batch(url, tokens, held):
    """The sum over 8 answers at once, of which one is held if `held`."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return sum(pool.map(lambda i: rate(url, tokens, held and i == 0), range(8)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    url = options.url.rstrip("/")
    for name, measure in (("alone", rate), ("batch of 8, one held", batch)):
        measure(url, 20, True)
        rates = {False: [], True: []}
        for _ in range(options.rounds):
            for held in (False, True):
                rates[held].append(measure(url, options.tokens, held))
        free, held = (statistics.median(rates[key]) for key in (False, True))
        print(f"{name}: {free:.1f} free, {held:.1f} held tokens/s, {100 * held / free:.1f} %")


main()
