#!/usr/bin/env python3
"""Peak memory of `tallow serve --weight-quant TYPE` on a random model of Llama-3.2-1B's shape (1.24 billion parameters, bf16).

usage: peak_memory.py [--tallow PATH] [--type q4_k] [--model DIR]        needs: numpy, Linux, 2.5 GB of disk
DIR is made if it is not there. Fails if the peak exceeds 1.3 times the final weights plus 500 MB.
"""
import argparse
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))
from tallow_server import serve

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 2048, 16, 32, 8, 64, 8192, 128256


def make(folder: pathlib.Path) -> None:
    """Random weights; the tokenizer is the demo's, which has fewer tokens than the embedding rows."""
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(ROOT / "models/demo" / file, folder / file)
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, rms_norm_eps=1e-5,
        max_position_embeddings=8192, rope_theta=5e5, tie_word_embeddings=True, hidden_act="silu",
    )
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {at + "input_layernorm.weight": (HIDDEN,), at + "post_attention_layernorm.weight": (HIDDEN,)}
        for name, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows * HEAD_DIM, HIDDEN)
        shapes[at + "self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_DIM)
        shapes |= {f"{at}mlp.{name}_proj.weight": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")}
        shapes[at + "mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            rows = [shape[:1]] if len(shape) == 1 else [(min(4096, shape[0] - row), shape[1]) for row in range(0, shape[0], 4096)]
            for part in rows:
                values = rng.standard_normal(part, np.float32) * 0.02 + (1.0 if len(part) == 1 else 0.0)
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tallow", type=pathlib.Path, default=ROOT / "target/release/tallow")
    parser.add_argument("--type", default="q4_k")
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "tallow-random-1b")
    args = parser.parse_args()
    if not args.model.exists():
        make(args.model)
    flags = ["--weight-quant", args.type, "--kv-cache-memory", "16MiB", "--max-model-len", "256", "--max-num-seqs", "1", "--kv-centre", "off"]
    begin = time.monotonic()
    with serve(args.tallow, args.model, *flags) as server:
        seconds = time.monotonic() - begin
        server.post("/v1/completions", dict(prompt=[1, 2, 3], max_tokens=4, ignore_eos=True))
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        weights = int(re.search(r"weights: (\d+) bytes", server.log.read_text())[1])
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    limit = 1.3 * weights + 500e6
    print(f"{args.type}: loaded in {seconds:.0f} s, peak {peak / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB, limit {limit / 1e6:.0f} MB")
    if peak > limit:
        sys.exit("the peak is over the limit")


main()
