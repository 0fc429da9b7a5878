#!/usr/bin/env python3
"""A server in a control group with little memory, beside a process that takes it away in steps, under load that grows. It must refuse and
preempt, take requests again when memory is back, never be killed, and answer right. Then: resident memory after 5,000 short requests beside
that after 500. For Linux, as root; not a part of the gate.
usage: scripts/memory-limit.py --model MODEL [--limit-mib 1228] [--cache 384MiB] [--rounds 3] [--requests 5000] [--tallow target/release/tallow]"""
import argparse
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Words of which prompts are made: the i-th prompt begins with its number, so that it shares no prefix with another.
WORDS = "the sea bees bridges stone winter letters of a river and iron under seven lamps near old paper ships".split()
# How much resident memory may grow from a tenth of the requests to all.
GROWTH = 0.03
HELPER = """
import sys
for line in sys.stdin:
    hold = None
    hold = b"x" * (int(line) << 20)
    print("held", flush=True)
"""


class Group:
    """A control group of this script's own, of either version."""

    def __init__(self, limit: int):
        v1 = pathlib.Path("/sys/fs/cgroup/memory")
        self.is_v1 = (v1 / "memory.limit_in_bytes").exists()
        self.folder = (v1 if self.is_v1 else v1.parent) / f"tallow-memory-limit-{os.getpid()}"
        self.folder.mkdir()
        if not self.is_v1 and not (self.folder / "memory.max").exists():
            self.folder.rmdir()
            raise SystemExit("control groups have no memory controller here")
        (self.folder / ("memory.limit_in_bytes" if self.is_v1 else "memory.max")).write_text(str(limit))

    def start(self, command: list, **options) -> subprocess.Popen:
        script = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return subprocess.Popen(["sh", "-c", script, str(self.folder), *map(str, command)], **options)

    def kills(self) -> int:
        text = (self.folder / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text()
        return int(re.search(r"^oom_kill (\d+)", text, re.MULTILINE)[1])

    def used(self) -> int:
        return int((self.folder / ("memory.usage_in_bytes" if self.is_v1 else "memory.current")).read_text())

    def remove(self) -> None:
        for _ in range(50):
            try:
                return self.folder.rmdir()
            except OSError:
                time.sleep(0.1)


class Server:
    def __init__(self, process: subprocess.Popen, log: pathlib.Path):
        self.process = process
        wait_for("the server's start", lambda: self.address(log) is not None, 300)
        self.port = self.address(log)
        wait_for("the model", lambda: self.get("/health")[0] == 200, 300)

    def address(self, log: pathlib.Path):
        assert self.process.poll() is None, f"the server has ended:\n{log.read_text()}"
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text())
        return int(found[1]) if found else None

    def get(self, path: str) -> tuple:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def complete(self, body: dict) -> tuple:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers

    def metric(self, name: str) -> float:
        text = self.get("/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} ([0-9.e+-]+)$", text, re.MULTILINE))

    def resident(self) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[1]) << 10

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, f"the server ended with status {self.process.returncode}"


def wait_for(what: str, condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.1)


def question(i: int) -> dict:
    """A prompt that is the longer the larger its number, and how long an answer it gets."""
    dice = random.Random(i)
    return {"prompt": f"Story {i}. " + " ".join(dice.choices(WORDS, k=40 + 60 * i)), "max_tokens": 16 + 8 * (i % 4), "temperature": 0}


class Load:
    """Clients that ask again and again, and compare each answer with the one that the same prompt had alone."""

    def __init__(self, server: Server, want: list):
        self.server, self.want, self.stop = server, want, threading.Event()
        self.right, self.refused, self.errors, self.threads = 0, 0, [], []

    def add_client(self) -> None:
        self.threads.append(threading.Thread(target=self.run, args=(len(self.threads),)))
        self.threads[-1].start()

    def run(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.stop.is_set():
            i = dice.randrange(len(self.want))
            try:
                status, answer, headers = self.server.complete(question(i))
                if status == 200:
                    assert answer["choices"][0]["text"] == self.want[i], f"another answer to prompt {i}: {answer}"
                    self.right += 1
                else:
                    assert status == 503 and answer["error"]["code"] == "memory_pressure", f"{status}: {answer}"
                    self.refused += 1
                    self.stop.wait(int(headers["retry-after"]))
            except Exception as error:  # pylint: disable=broad-except
                self.errors.append(repr(error))
                return self.stop.set()

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors


def squeeze(group: Group, server: Server, load: Load, helper: subprocess.Popen, limit: int) -> None:
    """Takes memory in steps until the server says that it is critical, holds it for a while, and gives it back."""
    step, held = limit // 32 >> 20, 0

    def hold(mib: int) -> None:
        helper.stdin.write(f"{mib}\n")
        helper.stdin.flush()
        assert helper.stdout.readline() == "held\n", "the process that takes memory has ended"

    refused = load.refused
    while server.metric("tallow_memory_pressure") < 2:
        assert held << 20 < limit and not load.errors, (held, load.errors)
        held += step
        hold(held)
        time.sleep(0.6)
    print(f"  critical with {held} MiB taken and {group.used() >> 20} MiB in use of {limit >> 20}")
    wait_for("a refusal", lambda: load.refused > refused or load.errors, 60)
    time.sleep(3)
    running = json.loads(server.get("/v1/loads")[1])["loads"][0]["num_running_reqs"]
    assert running <= 1, f"{running} sequences run"
    hold(0)
    wait_for("the end of the pressure", lambda: server.metric("tallow_memory_pressure") == 0, 60)
    right = load.right
    wait_for("a right answer after the pressure", lambda: load.right > right or load.errors, 300)


def under_pressure(args: argparse.Namespace, folder: pathlib.Path) -> None:
    limit = args.limit_mib << 20
    group = Group(limit)
    log = folder / "log"
    command = [args.tallow, "serve", args.model, "--port", "0", "--kv-cache-memory", args.cache, "--kv-disk-cache", "256MiB", "--kv-disk-cache-dir", folder / "kv"]
    helper = group.start([sys.executable, "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        with log.open("wb") as out:
            process = group.start(command, stderr=out)
        try:
            server = Server(process, log)
            want = [server.complete(question(i))[1]["choices"][0]["text"] for i in range(args.prompts)]
            print(f"{args.prompts} prompts answered alone; {group.used() >> 20} MiB in use of {limit >> 20}")
            load = Load(server, want)
            try:
                for _ in range(args.rounds):
                    for _ in range(4):
                        load.add_client()
                    squeeze(group, server, load, helper, limit)
            finally:
                load.end()
            preempted, shed = server.metric("vllm:num_preemptions_total"), server.metric("tallow_requests_shed_total")
            assert shed == load.refused > 0 and preempted > 0 and load.right > 0, (shed, load.refused, preempted, load.right)
            assert group.kills() == 0, "a process of the group was killed"
            print(f"{load.right} right answers, {load.refused} refused, {preempted:.0f} preemptions, nobody killed")
            server.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            print("\n".join(line for line in log.read_text().splitlines() if "memory pressure" in line or "ERROR" in line))
    finally:
        helper.kill()
        helper.wait()
        group.remove()


def growth(args: argparse.Namespace, folder: pathlib.Path) -> None:
    log = folder / "log-of-growth"
    # So small a cache is full before the first measurement.
    command = [args.tallow, "serve", "models/demo", "--port", "0", "--kv-cache-memory", "8MiB", "--kv-disk-cache", "off", "--max-model-len", "512"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out)
    try:
        server = Server(process, log)
        resident = {}
        for i in range(args.requests):
            status, answer, _ = server.complete({"prompt": [300 + (i * 7 + t * 13) % 4000 for t in range(20 + i % 40)], "max_tokens": 4})
            assert status == 200, answer
            if i + 1 in (args.requests // 10, args.requests):
                resident[i + 1] = server.resident()
        first, last = resident.values()
        print(f"resident memory: {', '.join(f'{size / 2**20:.1f} MiB after {n} requests' for n, size in resident.items())} ({last / first - 1:+.1%})")
        assert last <= first * (1 + GROWTH), "it grows"
        server.stop()
    finally:
        if process.poll() is None:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit-mib", type=int, default=1228)
    parser.add_argument("--cache", default="384MiB")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--tallow", default="target/release/tallow")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        under_pressure(args, pathlib.Path(folder))
        growth(args, pathlib.Path(folder))


if __name__ == "__main__":
    main()
