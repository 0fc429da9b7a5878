"""Puts the router `smg` in front of two running servers of one model, and stops one of them under load.

    python with_smg.py --smg PROGRAM --servers http://127.0.0.1:8000 http://127.0.0.1:8001 --pid PROCESS-OF-THE-FIRST

Conversations come back to the server that knows them. Then the process is stopped by SIGTERM; no request that was sent
to the router may fail.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


def ask_with_headers(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read().decode(), response.headers


def ask(url, body=None):
    return ask_with_headers(url, body)[0]


def chat(url, model, number, **more):
    messages = [{"role": "user", "content": f"Tell me of the number {number}."}]
    return ask(f"{url}/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 32, **more})


def generated_by(servers):
    """The tokens that each server has generated since its start, by its metrics."""
    lines = [line for server in servers for line in ask(f"{server}/metrics").splitlines()]
    return [float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total")]


def wait_for(what, condition):
    for _ in range(300):
        try:
            if condition():
                return
        except (urllib.error.URLError, KeyError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"not after a minute: {what}")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def healthy_workers(url):
    return [worker for worker in json.loads(ask(f"{url}/workers"))["workers"] if worker["is_healthy"]]


@contextlib.contextmanager
def router(smg, servers, *options):
    """Runs the router with both servers until the block ends; gives its address."""
    port, metrics = free_port(), free_port()
    command = [smg, "launch", "--host", "127.0.0.1", "--port", str(port), *options, "--load-monitor-interval", "1"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics), "--log-level", "error"]
    command += ["--worker-startup-check-interval", "1", "--worker-urls", *servers]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for("the router takes both servers", lambda: len(healthy_workers(url)) == 2)
        yield url
    finally:
        process.kill()
        process.wait()


def check_affinity(url, model):
    """Eight conversations of three turns each: a later turn finds what the turns before it have left."""
    story = "The keeper of lighthouse {} counts the ships that pass in the night. "
    conversations = [[{"role": "system", "content": story.format(n) * 40}] for n in range(8)]
    taken_by = [set() for _ in conversations]
    for turn in range(3):
        for messages, servers in zip(conversations, taken_by):
            messages.append({"role": "user", "content": f"Tell me of ship {turn}."})
            body = {"model": model, "messages": messages, "max_tokens": 16}
            answer, headers = ask_with_headers(f"{url}/v1/chat/completions", body)
            answer = json.loads(answer)
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"] or "-"})
            servers.add(headers["x-smg-routed-worker-id"])
            prompt, usage = answer["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens_details"]
            assert turn == 0 or usage["cached_tokens"] > 0.8 * prompt, (turn, prompt, usage)
    assert all(len(servers) == 1 for servers in taken_by) and len(set.union(*taken_by)) == 2, taken_by
    print("ok      a conversation comes back to the server that knows it, and both have some", flush=True)


def check_router(url, servers, pid):
    model = json.loads(ask(f"{servers[0]}/v1/models"))["data"][0]["id"]
    limits = [(worker["model_id"], worker["models"][0]["context_length"] > 0) for worker in healthy_workers(url)]
    assert limits == [(model, True)] * 2, limits
    print("ok      both servers are found, with their model and context length", flush=True)

    wait_for("loads are read", lambda: len(json.loads(ask(f"{url}/get_loads"))["loads"]) == 2)
    for load in json.loads(ask(f"{url}/get_loads"))["loads"]:
        assert load["max_total_num_tokens"] > 0 and load["max_running_requests"] > 0, load
    print("ok      their loads are read", flush=True)

    before = generated_by(servers)
    for number in range(4):
        assert json.loads(chat(url, model, number))["choices"][0]["message"]["content"]
    assert chat(url, model, 5, stream=True).endswith("data: [DONE]\n\n")
    after = generated_by(servers)
    assert all(then > now for now, then in zip(before, after)), (before, after)
    print("ok      both answer, whole and streamed", flush=True)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(chat, url, model, number, ignore_eos=True) for number in range(48)]
        wait_for("some are answered", lambda: sum(answer.done() for answer in answers) >= 8)
        os.kill(pid, signal.SIGTERM)
        tokens = [json.loads(answer.result())["usage"]["completion_tokens"] for answer in answers]
    assert tokens == [32] * 48, tokens
    print("ok      one is stopped, and no request is lost", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smg", required=True)
    parser.add_argument("--servers", required=True, nargs=2)
    parser.add_argument("--pid", required=True, type=int)
    args = parser.parse_args()
    with router(args.smg, args.servers, "--policy", "cache_aware") as url:
        check_affinity(url, healthy_workers(url)[0]["model_id"])
    with router(args.smg, args.servers, "--policy", "round_robin") as url:
        check_router(url, args.servers, args.pid)
    print(f"all checks hold with smg {importlib.metadata.version('smg')}")


if __name__ == "__main__":
    sys.exit(main())
