#!/usr/bin/env python3
"""What a known prefix saves: time to the first token of prompts that are cold, in memory, or on disk after a restart; an agent's loop;
sessions that share a system prompt; requests that share nothing.

    cargo build --release -p tallow
    benches/cache/measure.py MODEL [--parts first,loop,sessions,strangers] [--lengths 1000,7000] [--tallow PATH] [--llama-cpp] [--flags ".."]

MODEL is a GGUF file or a folder. Prompts are random token ids, so that only what the script repeats is known. `--llama-cpp` runs the loop
on llama.cpp's server too (wheel `xllamacpp`, a GGUF file), with its prompt cache of 8 GiB (`--cache-ram`). Both serve by turns, never at
the same time. Every part starts a server of its own, with a folder of its own on disk.
"""
import argparse
import concurrent.futures
import contextlib
import json
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import tallow_server  # noqa: E402

NEW = 100


class Ids:
    """Random token ids, by default such as every model of ten thousand tokens has."""

    most = 10_000

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def take(self, count):
        return [self.dice.randrange(300, self.most) for _ in range(count)]


def stream(url, path, body):
    """Seconds to the first token, and all of the answer's events."""
    request = urllib.request.Request(url + path, json.dumps(body | {"stream": True}).encode(), {"content-type": "application/json"})
    begin, first, events = time.monotonic(), None, []
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - begin
                events.append(json.loads(line[6:]))
    return first, events


class Tallow:
    name = "tallow"

    def __init__(self, url):
        self.url = url

    def ask(self, prompt, tokens):
        """Seconds to the first token, the answer's tokens, how many tokens of the prompt were computed."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        first, events = stream(self.url, "/v1/completions", body | {"stream_options": {"include_usage": True}})
        answer = [token for event in events for choice in event["choices"] for token in choice.get("token_ids") or []]
        usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return first, answer, usage["prompt_tokens"] - cached


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, url):
        self.url = url

    def ask(self, prompt, tokens):
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "return_tokens": True, "cache_prompt": True}
        first, events = stream(self.url, "/completion", body)
        return first, [token for event in events for token in event.get("tokens") or []], events[-1]["timings"]["prompt_n"]


@contextlib.contextmanager
def tallow(options, folder, *flags):
    folder = ["--kv-disk-cache", "4GiB", "--kv-disk-cache-dir", folder]
    with tallow_server.serve(options.tallow, options.model, "--kv-preset", "balanced", *options.flags.split(), *folder, *flags) as server:
        yield Tallow(server.url)


@contextlib.contextmanager
def llama_cpp(options, context):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = HERE.parent / "peers" / "llamacpp.py"
    command = [sys.executable, script, options.model, str(port), str(context), "1", "f16", "f16", str(options.threads), "8192"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(url + "/health").status == 200:
                    break
            time.sleep(0.2)
        if process.poll() is not None:
            sys.exit("llama.cpp's server ended; is the wheel xllamacpp installed?")
        yield LlamaCpp(url)
    finally:
        process.kill()
        process.wait()


def first_token(options):
    """Cold, known but for the last 100 tokens, and the same after a restart."""
    print(f"{'tokens':>7} {'cold':>8} {'memory':>8} {'disk':>8}   of cold")
    for length in map(int, options.lengths.split(",")):
        ids = Ids(length)
        known = ids.take(length - NEW)
        with tempfile.TemporaryDirectory() as folder:
            with tallow(options, folder) as server:
                server.ask(ids.take(200), 4)
                cold = server.ask(known + ids.take(NEW), 4)[0]
                memory = min(server.ask(known + ids.take(NEW), 4)[0] for _ in range(3))
            with tallow(options, folder) as server:
                server.ask(ids.take(200), 4)
                disk, _, computed = server.ask(known + ids.take(NEW), 4)
        print(f"{length:>7} {cold:8.3f} {memory:8.3f} {disk:8.3f}   {memory / cold:.1%} {disk / cold:.1%} ({computed} computed)", flush=True)


def agent(server, turns, system):
    """Seconds to the first token of each turn, tokens computed, and tokens that were new."""
    ids = Ids(5)
    prompt, times, computed, new = ids.take(system), [], 0, system
    for turn in range(turns):
        added = ids.take(60 + turn * 13 % 200)
        prompt, new = prompt + added, new + len(added)
        first, answer, count = server.ask(prompt, 24)
        times.append(first)
        computed += count
        # The answer's last token has been drawn and not computed.
        prompt, new = prompt + answer, new + 1
    return times, computed, new - 1


def loop(options):
    """Twenty turns of an agent, each with an answer and a tool's result, behind a system prompt."""
    results = {}
    with tempfile.TemporaryDirectory() as folder, tallow(options, folder) as server:
        server.ask(Ids(1).take(200), 4)
        results[server.name] = agent(server, options.turns, options.system)
    if options.llama_cpp:
        with llama_cpp(options, options.system + options.turns * 320) as server:
            server.ask(Ids(1).take(200), 4)
            results[server.name] = agent(server, options.turns, options.system)
    for name, (times, computed, new) in results.items():
        later = times[1:]
        print(f"{name:>10}: first turn {times[0]:.3f} s, later {statistics.median(later):.3f} s (largest {max(later):.3f}); {computed} tokens computed, {new} new: {computed / new:.3f}")
    if len(results) == 2:
        ours, theirs = (results[name][0] for name in ("tallow", "llama.cpp"))
        print(f"turns in which tallow's first token came earlier: {sum(a < b for a, b in zip(ours, theirs))} of {len(ours)}")


def sessions(options):
    """Four sessions that begin at once with one system prompt."""
    with tempfile.TemporaryDirectory() as folder, tallow(options, folder) as server:
        system, ids = Ids(2).take(options.system), Ids(3)
        prompts = [system + ids.take(80) for _ in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            computed = sum(count for _, _, count in pool.map(lambda prompt: server.ask(prompt, 8), prompts))
    print(f"four sessions: {computed} tokens computed; the system prompt has {options.system}, what is their own 320")


def strangers(options):
    """64 requests that share nothing, in a pool that is too small for all: tokens a second with the cache and without."""
    prompts = [Ids(1000 + i).take(150 + i * 37 % 300) for i in range(64)]
    rates = {"with": [], "without": []}
    for _ in range(options.rounds):
        for kind, flags in (("with", []), ("without", ["--no-prefix-cache"])):
            with tempfile.TemporaryDirectory() as folder, tallow(options, folder, "--kv-cache-memory", options.small, *flags) as server:
                server.ask(Ids(1).take(200), 4)
                begin = time.monotonic()
                with concurrent.futures.ThreadPoolExecutor(64) as pool:
                    answers = list(pool.map(lambda prompt: server.ask(prompt, 48), prompts))
                tokens = sum(len(prompt) + len(answer) for prompt, (_, answer, _) in zip(prompts, answers))
                rates[kind].append(tokens / (time.monotonic() - begin))
    best = {kind: max(values) for kind, values in rates.items()}
    print(f"64 strangers: {best['with']:.1f} tokens/s with the cache, {best['without']:.1f} without: {best['with'] / best['without']:.1%}")


PARTS = {"first": first_token, "loop": loop, "sessions": sessions, "strangers": strangers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tallow", type=pathlib.Path, default=HERE.parents[1] / "target/release/tallow")
    parser.add_argument("--parts", default="first,loop,sessions,strangers")
    parser.add_argument("--lengths", default="1000,7000")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--system", type=int, default=3000)
    parser.add_argument("--small", default="24MiB", help="the pool that is too small for 64 strangers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flags", default="", help="further flags of tallow serve")
    parser.add_argument("--vocabulary", type=int, default=Ids.most, help="tokens of a smaller vocabulary")
    parser.add_argument("--llama-cpp", action="store_true")
    options = parser.parse_args()
    Ids.most = options.vocabulary
    for part in options.parts.split(","):
        PARTS[part](options)


if __name__ == "__main__":
    main()
