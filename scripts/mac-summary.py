#!/usr/bin/env python3
"""One page about a run of mac-acceptance.sh: what is right, what is fast, and what is not. usage: mac-summary.py FOLDER

FOLDER has parts.tsv (name, outcome), speed-NAME.json (`tallow bench`), quality-WEIGHTS-DEVICE.json (`tallow eval`) and growth.txt (KiB).
What is missing is told as not measured.
"""
import json
import sys
from pathlib import Path

# What is expected at least or at most, and where it comes from.
CLIENTS = 1.2  # times the tokens of one client, of two: the weights are read once for both
LOSS = 0.01  # nats a token between GPU and CPU: what 16-bit activations cost
GROWTH = 65536  # KiB over 2,000 tokens


def speeds(folder, name):
    """(context, batch) -> (prefill, decode) in tokens a second, of the first pair of formats."""
    path = folder / f"speed-{name}.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text())
    return {(row["context"], row["batch"]): (row["prefill"]["median"], row["decode"]["median"]) for row in reversed(rows)}


def loss(folder, weights, device):
    path = folder / f"quality-{weights}-{device}.json"
    texts = json.loads(path.read_text())["texts"] if path.exists() else []
    return next((text["nll_exact"] for text in texts if "nll_exact" in text), None)


class Page:
    def __init__(self):
        self.lines, self.bad = [], []

    def title(self, text):
        self.lines.append(f"\n{text}")

    def say(self, what, figure, good):
        """good: whether the figure is as expected; None where nothing is expected or measured."""
        mark = {True: "ok ", False: "NO ", None: "   "}[good]
        self.lines.append(f"  {mark} {what}: {figure}")
        if good is False:
            self.bad.append(what)

    def compare(self, what, above, below, least):
        """A ratio that should be at least `least`."""
        if above and below:
            self.say(what, f"{above / below:.2f} times", above / below >= least)
        else:
            self.say(what, "not measured", None)


def page(folder):
    page = Page()
    page.title("What is right")
    parts = folder / "parts.tsv"
    for line in parts.read_text().splitlines() if parts.exists() else []:
        name, outcome = line.split("\t")
        page.say(name, outcome, outcome == "passed")
    for weights in ("none", "q8_0"):
        gpu, cpu = loss(folder, weights, "metal"), loss(folder, weights, "cpu")
        what = f"loss on the GPU less that on the CPU, weights {'as stored' if weights == 'none' else weights}"
        known = gpu is not None and cpu is not None
        page.say(what, f"{gpu - cpu:+.4f} nats" if known else "not measured", abs(gpu - cpu) < LOSS if known else None)
    growth = folder / "growth.txt"
    kib = int(growth.read_text()) if growth.exists() else None
    page.say("memory over 2,000 tokens", "not measured" if kib is None else f"{kib:+} KiB", None if kib is None else kib < GROWTH)

    page.title("What is fast (tokens a second)")
    names = {
        "gpu": "GPU", "gpu-vec": "GPU, attend_vec", "gpu-q8_0": "GPU, q8_0", "gpu-q4_k-exact": "GPU, q4_k, exact",
        "gpu-q4_k-fast": "GPU, q4_k, fast", "gpu-long": "GPU, long", "cpu": "CPU",
    }  # fmt: skip
    measured = {name: speeds(folder, name) for name in names}
    page.lines.append(f"      {'':20}{'context':>8}{'prefill':>9}{'1 client':>10}{'2':>8}{'4':>8}")
    for name, rows in measured.items():
        for context in sorted({context for context, _ in rows}):
            prefill = next(prefill for (at, _), (prefill, _) in rows.items() if at == context)
            decode = ["-" if (context, n) not in rows else f"{rows[context, n][1]:.1f}" for n in (1, 2, 4)]
            page.lines.append(f"      {names[name]:20}{context:>8}{prefill:>9.0f}{decode[0]:>10}{decode[1]:>8}{decode[2]:>8}")
    decode = lambda name, batch: measured[name].get((2048, batch), (None, None))[1]
    page.compare("decoding on the GPU against the CPU", decode("gpu", 1), decode("cpu", 1), 1)
    for name in ("gpu", "gpu-q8_0", "gpu-q4_k-exact", "gpu-q4_k-fast"):
        page.compare(f"two clients against one, {names[name]}", decode(name, 2), decode(name, 1), CLIENTS)
    page.compare("weights in q4_k against as stored", decode("gpu-q4_k-exact", 1), decode("gpu", 1), 1)
    fast, exact = decode("gpu-q4_k-fast", 1), decode("gpu-q4_k-exact", 1)
    ratio = "not measured" if not (fast and exact) else f"{fast / exact:.2f} times"
    page.say("--gpu-products fast against exact, q4_k, one client", ratio, None)
    vec, mma = decode("gpu-vec", 1), decode("gpu", 1)
    better = None if not (vec and mma) else "vec" if vec > mma else "mma"
    page.say("the better --decode-kernel at 2,048 tokens", better or "not measured", None)

    page.title("What is not")
    page.lines += [f"  {what}" for what in page.bad] or ["  nothing that was measured"]
    return "\n".join(page.lines)


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
