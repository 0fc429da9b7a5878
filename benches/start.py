#!/usr/bin/env python3
"""How long `tallow serve` takes from nothing to its first token with a file that the page cache holds, and how much memory that takes.

usage: start.py FILE [--tallow PATH] [--rounds N] [FLAG ..]        FLAGs are those of `tallow serve`. Linux.

FILE is a GGUF file. It is read once before, so that no disk is measured. A model's first start also measures its keys where the preset asks
for that, and keeps what it found: the first round shows it. Peak memory counts the pages of the file that are mapped.
"""
import argparse
import pathlib
import re
import time

import tallow_server

ROOT = pathlib.Path(__file__).resolve().parents[1]
parser = argparse.ArgumentParser()
parser.add_argument("file", type=pathlib.Path)
parser.add_argument("--tallow", type=pathlib.Path, default=ROOT / "target/release/tallow")
parser.add_argument("--rounds", type=int, default=3)
arguments, flags = parser.parse_known_args()

size = 0
with arguments.file.open("rb") as file:
    while read := len(file.read(1 << 24)):
        size += read
print(f"{arguments.file.name}: {size / 1e6:.0f} MB")
for _ in range(arguments.rounds):
    begin = time.monotonic()
    with tallow_server.serve(arguments.tallow, arguments.file, *flags) as server:
        ready = time.monotonic() - begin
        server.post("/v1/completions", {"prompt": "Hello", "max_tokens": 1, "temperature": 0})
        first = time.monotonic() - begin
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024
    print(f"ready after {ready:.2f} s, first token after {first:.2f} s, peak memory {peak / 1e6:.0f} MB, {(peak - size) / 1e6:+.0f} beside the file")
