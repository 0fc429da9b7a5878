#!/usr/bin/env python3
"""Prefill and decode speed of Tallow and its peers, side by side on this machine, each with the same Q8_0 weights.

usage: measure.py MODEL_DIR [--servers NAME,..] [--contexts N,..] [--clients N,..] [--tokens N] [--rounds N] [--cpus N,..] [--json FILE]

MODEL_DIR holds what make_model.py writes. Servers: tallow:PRESET, llama.cpp:K_TYPE/V_TYPE, mistral.rs (see SERVERS for the default list). One runs at
a time; rounds go through all of them, and the best of each cell counts, so that a busy minute of the machine does not decide.
Prefill is prompt tokens over the time to the last client's first token; decode is what all clients get between that moment and the first
client's end. Needs: target/release/tallow, and the wheels of requirements.txt.
"""
import argparse, http.client, json, os, pathlib, random, socket, string, subprocess, sys, threading, time

HERE = pathlib.Path(__file__).resolve().parent
TALLOW = HERE.parent.parent / "target/release/tallow"
SERVERS = "tallow:bf16,tallow:balanced,llama.cpp:f16/f16,llama.cpp:q8_0/q4_0,mistral.rs"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def command(server, model, port, context, clients, threads):
    """What starts a server that holds `clients` sequences of `context` tokens."""
    kind, _, option = server.partition(":")
    gguf = str(model / "model-q8_0.gguf")
    if kind == "tallow":
        return [str(TALLOW), "serve", gguf, "--port", str(port), "--kv-preset", option, "--threads", str(threads),
                "--max-model-len", str(context), "--max-num-seqs", str(clients), "--served-model-name", "m"]
    if kind == "llama.cpp":
        return [sys.executable, str(HERE / "llamacpp.py"), gguf, str(port), str(context * clients), str(clients), *option.split("/"), str(threads)]
    if kind == "mistral.rs":
        return [sys.executable, str(HERE / "mistralrs_server.py"), gguf, str(port)]
    sys.exit(f"--servers {server}: it must be tallow:PRESET, llama.cpp:K/V or mistral.rs")


def ready(port, process, seconds=600):
    for _ in range(seconds * 5):
        if process.poll() is not None:
            sys.exit(f"{' '.join(process.args)} ended with {process.returncode}; see its log")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"{' '.join(process.args)} did not answer within {seconds} s")


def stream(port, prompt, tokens, out):
    """Times of the tokens of one streamed completion."""
    body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True, "cache_prompt": False}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        out.append(response.read().decode())
        return
    for line in response:
        if line.startswith(b"data: {") and json.loads(line[6:]).get("choices"):
            out.append(time.perf_counter())


def cell(port, context, clients, tokens):
    """(prefill, decode) in tokens a second of `clients` prompts that fill `context` together with their answers."""
    # A server may decode for the first clients while it prefills for the last, whose share of the answers must remain.
    tokens *= min(clients, 3)
    length = context - tokens - 8  # a server may add BOS
    # Of different lengths: mistral.rs 0.9.5 fails on several prompts of the same length.
    prompts = ["".join(random.choices(string.ascii_lowercase, k=length - i)) for i in range(clients)]
    times = [[] for _ in prompts]
    threads = [threading.Thread(target=stream, args=(port, p, tokens, t)) for p, t in zip(prompts, times)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for t in times:
        if len(t) < tokens // 2 or any(isinstance(x, str) for x in t):
            sys.exit(f"a client got {len(t)} events instead of {tokens} tokens: {t[:1]}")
    last_first, first_last = max(t[0] for t in times), min(t[-1] for t in times)
    between = sum(last_first < x <= first_last for t in times for x in t)
    decode = between / (first_last - last_first) if first_last > last_first else float("nan")
    return sum(map(len, prompts)) / (last_first - start), decode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--servers", default=SERVERS)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--contexts", type=numbers, default=[512, 4096, 8192])
    parser.add_argument("--clients", type=numbers, default=[1, 4])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpus", type=numbers, default=sorted(os.sched_getaffinity(0)), help="processors of the servers, a thread each")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    servers, threads = args.servers.split(","), len(args.cpus)
    # mistral.rs has no flag for it.
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    best = {}
    for _ in range(args.rounds):
        for server in servers:
            port = free_port()
            log = open(args.model / f"{server.replace('/', '-').replace(':', '-')}.log", "w")
            run = command(server, args.model, port, max(args.contexts) + 64, max(args.clients), threads)
            process = subprocess.Popen(run, stdout=log, stderr=subprocess.STDOUT, env=environment,
                                       preexec_fn=lambda: os.sched_setaffinity(0, args.cpus))
            try:
                ready(port, process)
                cell(port, 128, 1, 16)  # warm
                for context in args.contexts:
                    for clients in args.clients:
                        old, new = best.get((server, context, clients), (0, 0)), cell(port, context, clients, args.tokens)
                        best[server, context, clients] = tuple(max(pair) for pair in zip(old, new))
                        print(server, context, clients, *(f"{x:.1f}" for x in new), file=sys.stderr, flush=True)
            finally:
                process.terminate()
                process.wait()
    print(f"\n{args.model.name}, Q8_0 weights, {threads} threads, best of {args.rounds}: prefill / decode, tokens a second\n")
    print("| context | clients | " + " | ".join(servers) + " |\n|---|---|" + "---|" * len(servers))
    for context in args.contexts:
        for clients in args.clients:
            cells = (f"{p:.1f} / {d:.1f}" for p, d in (best[server, context, clients] for server in servers))
            print(f"| {context} | {clients} | " + " | ".join(cells) + " |")
    if args.json:
        rows = [dict(server=s, context=c, clients=n, prefill=p, decode=d) for (s, c, n), (p, d) in best.items()]
        args.json.write_text(json.dumps(dict(model=args.model.name, threads=threads, rounds=args.rounds, rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
