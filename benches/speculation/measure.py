#!/usr/bin/env python3
"""Tokens a second with speculation and without, on two servers that take turns: edits of a file, quotes of a document and prose,
greedy; and prose that is sampled, which repeats itself less.

usage: benches/speculation/measure.py MODEL [--rounds 3] [--tokens 400] [--draft 16] [--parts edits,quotes,prose,sampled]
"""
import argparse
import json
import pathlib
import statistics
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tallow_server import serve  # noqa: E402

ROOT = HERE.parent.parent
SOURCE = (HERE / "inventory.py").read_text()
DOCUMENT = (ROOT / "docs" / "ARCHITECTURE.md").read_text()

EDITS = [
    "Rename the method `restock` to `refill` everywhere.",
    "Add a docstring to every method that has none.",
    "Let `Item.price` be in cents: rename it to `price_cents` everywhere.",
]
QUOTES = [
    "Quote the section 'Recurrent states' word for word, then say in one sentence what a snapshot is for.",
    "Quote the three rules of the section 'What a request answers depends on the request alone' word for word, then explain the second one.",
]
PROSE = [
    "Write a story of about three hundred words about a lighthouse keeper who finds a letter.",
    "Explain to a ten-year-old how a river shapes a valley, in about three hundred words.",
    "Describe a market in an old harbour town on a rainy morning, in about three hundred words.",
]


def prompts(part: str) -> list[str]:
    if part == "edits":
        return [f"{task} Answer with the whole file in one code block, and nothing else.\n\n```python\n{SOURCE}```" for task in EDITS]
    if part == "quotes":
        return [f"{DOCUMENT}\n\n{task}" for task in QUOTES]
    return PROSE


def answer(url: str, prompt: str, tokens: int, temperature: float) -> tuple[float, str, dict]:
    """Tokens a second behind the first one, the answer's text, and the counts of its tokens."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": temperature,
        "seed": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    times, text, usage = [], "", {}
    with urllib.request.urlopen(request, timeout=3600) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                content = choice["delta"].get("content")
                if content:
                    times.append(time.monotonic())
                    text += content
    return (usage["completion_tokens"] - 1) / (times[-1] - times[0]), text, usage


def measure(part: str, urls: list[str], rounds: int, tokens: int) -> None:
    for prompt in prompts(part):
        rates, texts, usages = [[], []], [None, None], [{}, {}]
        for turn in range(rounds):
            # Whoever comes second meets the machine as it was a moment ago.
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                rate, text, usages[which] = answer(urls[which], prompt, tokens, 1.0 if part == "sampled" else 0.0)
                if texts[which] not in (None, text):
                    sys.exit(f"an answer is not the one that came before: {prompt[:60]}")
                texts[which] = text
                rates[which].append(rate)
        # Neighbours in time are compared, since the machine may have other work.
        ratios = [drafted / plain for plain, drafted in zip(*rates)]
        details = usages[1].get("completion_tokens_details") or {}
        accepted, rejected = (details.get(f"{what}_prediction_tokens") or 0 for what in ("accepted", "rejected"))
        plain, drafted = (statistics.median(r) for r in rates)
        equal = "equal" if texts[0] == texts[1] else "NOT EQUAL"
        print(
            f"{part:7} {usages[1]['completion_tokens']:4} tokens, {accepted} of {accepted + rejected} drafted accepted, "
            f"{plain:.1f} and {drafted:.1f} tokens/s, ratio {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}], texts {equal}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "tallow")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--draft", default="16")
    parser.add_argument("--parts", default="edits,quotes,prose,sampled")
    options = parser.parse_args()
    flags = ["--kv-preset", "balanced", "--kv-disk-cache", "off", "--max-model-len", "16384", "--kv-cache-memory", "1GiB"]
    with (
        serve(options.binary, options.model, *flags, "--speculate", "off") as plain,
        serve(options.binary, options.model, *flags, "--speculate", options.draft) as drafted,
    ):
        for part in options.parts.split(","):
            measure(part, [plain.url, drafted.url], options.rounds, options.tokens)


if __name__ == "__main__":
    main()
