#!/usr/bin/env python3
"""An hour of mixed load on a server with a small cache: whole and streamed answers, clients that leave, wrong requests, long prompts, a log
that is rotated and a model file that is replaced. Fails if an answer is wrong in form, or if memory, descriptors or threads grow.
usage: scripts/soak.py [--minutes 60] [--model models/demo] [--cache 4MiB] [--tallow target/release/tallow]"""
import argparse
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

CLIENTS = 12
# What a server may have gained between the first tenth of the time and its end: memory that allocators keep, a thread that comes and goes.
MEMORY_GROWTH = 48 << 20
DESCRIPTOR_GROWTH = 2 * CLIENTS
THREAD_GROWTH = 2


class Load:
    def __init__(self, port: int, limit: int):
        self.port, self.limit = port, limit
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.counts: dict[str, int] = {}
        self.errors: list[str] = []

    def note(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def run(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.stop.is_set():
            kind = dice.choice([self.whole, self.whole, self.stream, self.leave, self.leave, self.grow, self.long, self.wrong, self.tokenize])
            try:
                kind(dice)
                self.note(kind.__name__)
            except Exception as error:  # pylint: disable=broad-except
                self.errors.append(f"{kind.__name__}: {error!r}")
                self.stop.set()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def post(self, path: str, body: dict, want: int = 200) -> bytes:
        connection = self.connect()
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status == want, f"{path}: {answer.status} for {want}: {text[:300]!r}"
        return text

    def body(self, dice: random.Random, **more) -> dict:
        message = {"role": "user", "content": "Tell me of " + " and ".join(dice.choices(["bees", "漢字", "😀", "the sea", "Rust"], k=3))}
        return {"messages": [message], "max_tokens": dice.randint(1, 60), "temperature": 0.8, "seed": dice.randint(0, 9), **more}

    def whole(self, dice: random.Random) -> None:
        n = dice.choice([1, 1, 2, 3])
        answer = json.loads(self.post("/v1/chat/completions", self.body(dice, n=n, logprobs=dice.random() < 0.3)))
        assert len(answer["choices"]) == n and all(choice["finish_reason"] for choice in answer["choices"]), answer

    def stream(self, dice: random.Random) -> None:
        text = self.post("/v1/chat/completions", self.body(dice, stream=True)).decode()
        assert text.rstrip().endswith("data: [DONE]") and '"error"' not in text, text[-300:]

    def leave(self, dice: random.Random) -> None:
        connection = self.connect()
        body = self.body(dice, stream=True, ignore_eos=True) | {"max_tokens": self.limit // 2}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read(dice.randint(1, 2000))
        connection.close()

    def grow(self, dice: random.Random) -> None:
        self.post("/v1/chat/completions", self.body(dice, ignore_eos=True) | {"max_tokens": self.limit // 2})

    def long(self, dice: random.Random) -> None:
        prompt = [dice.randint(300, 2000) for _ in range(dice.randint(self.limit // 4, self.limit // 2))]
        self.post("/v1/completions", {"prompt": prompt, "max_tokens": 4})

    def wrong(self, dice: random.Random) -> None:
        wrong = dice.choice([{"temperature": -1}, {"n": 0}, {"messages": 7}, {"max_tokens": "many"}, {"tools": [{}]}])
        self.post("/v1/chat/completions", self.body(dice) | wrong, 400)

    def tokenize(self, dice: random.Random) -> None:
        self.post("/tokenize", {"prompt": "many words " * dice.randint(1, 500)})


def usage(pid: int) -> tuple[int, int, int]:
    """Resident bytes, open descriptors and threads of a process."""
    status = pathlib.Path(f"/proc/{pid}/status")
    if status.exists():
        values = dict(re.findall(r"^(VmRSS|RssFile|Threads):\s+(\d+)", status.read_text(), re.MULTILINE))
        # Pages of the mapped model are the system's to keep or to drop.
        return (int(values["VmRSS"]) - int(values["RssFile"])) << 10, len(os.listdir(f"/proc/{pid}/fd")), int(values["Threads"])
    run = lambda *command: subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(run("ps", "-o", "rss=", "-p", str(pid))) << 10, len(run("lsof", "-p", str(pid)).splitlines()), len(run("ps", "-M", str(pid)).splitlines()) - 1


def metric(port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} ([0-9.e+-]+)$", text, re.MULTILINE))


def wait_for(what: str, condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.2)


def replace(model: pathlib.Path) -> None:
    """Puts an equal file in the place of each of the model's, as a new download does that is finished beside it."""
    for file in [model] if model.is_file() else [f for f in model.iterdir() if f.is_file()]:
        fresh = file.with_name(file.name + ".new")
        shutil.copy(file, fresh)
        os.replace(fresh, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/demo"))
    parser.add_argument("--cache", default="4MiB", help="memory of the cache: too little for all clients at once")
    parser.add_argument("--tallow", default="target/release/tallow")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, log = pathlib.Path(folder, args.model.name), pathlib.Path(folder, "log")
        shutil.copytree(args.model, model) if args.model.is_dir() else shutil.copy(args.model, model)
        # Fewer tokens than the clients ask for at once, so that sequences are preempted.
        limit = 1024
        command = [args.tallow, "serve", model, "--port", "0", "--max-model-len", str(limit), "--kv-cache-memory", args.cache, "--kv-preset", "balanced"]
        with log.open("ab") as out:
            server = subprocess.Popen(command, stderr=out)
        try:
            soak(server, model, log, limit, args.minutes * 60)
        finally:
            if server.poll() is None:
                server.kill()
            sys.stderr.write(log.read_text(errors="replace")[-2000:])


def soak(server: subprocess.Popen, model: pathlib.Path, log: pathlib.Path, limit: int, seconds: float) -> None:
    address = lambda: re.search(r"http://[0-9.]+:(\d+)", log.read_text())
    wait_for("a server that listens", lambda: address() or server.poll() is not None)
    assert server.poll() is None, log.read_text()
    port = int(address()[1])
    wait_for("the model", lambda: metric(port, "vllm:cache_config_info") > 0)
    load = Load(port, limit)
    threads = [threading.Thread(target=load.run, args=[i]) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    start, early, late, rotated = time.monotonic(), [], [], 0
    while not load.stop.is_set() and (passed := time.monotonic() - start) < seconds:
        assert server.poll() is None, f"the server ended with {server.returncode}"
        (early if passed < seconds / 10 else late).append(usage(server.pid))
        if passed > seconds * (rotated + 1) / 4:
            # What `copytruncate` of logrotate does, and an equal model in the place of the model.
            os.truncate(log, 0)
            replace(model)
            rotated += 1
        load.stop.wait(max(0.5, seconds / 500))
    load.stop.set()
    for thread in threads:
        thread.join()
    assert not load.errors, load.errors[0]
    idle = lambda: all(metric(port, f"vllm:{name}") == 0 for name in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"])
    wait_for("an idle server whose blocks are free", idle)
    preemptions = metric(port, "vllm:num_preemptions_total")
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=60) == 0, f"the server ended with {server.returncode}"
    # The largest of the first tenth, and the least of the last tenth: what is between them is growth, not fluctuation.
    before, after = [max(u[i] for u in early) for i in range(3)], [min(u[i] for u in late[-max(1, len(late) // 10) :]) for i in range(3)]
    print(f"{load.counts}, {preemptions:.0f} preemptions; bytes, descriptors, threads: {before} at first, {after} at last")
    assert preemptions > 0, "the cache was never too small"
    for name, a, b, most in zip(["memory", "descriptors", "threads"], before, after, [MEMORY_GROWTH, DESCRIPTOR_GROWTH, THREAD_GROWTH]):
        assert b - a <= most, f"{name} grew from {a} to {b}"


main()
