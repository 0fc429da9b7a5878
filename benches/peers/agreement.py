#!/usr/bin/env python3
"""Log-probabilities of the same GGUF file in Tallow and in llama.cpp, token by token over given text.

usage: agreement.py MODEL.gguf [--tallow PATH] [--text FILE] [--tokens N] [--mean-absolute D] [--mean D]       needs: xllamacpp
       MODEL.gguf from: scripts/goldens/to_gguf.py models/demo demo-q8_0.gguf q8_0
Both are given the same token ids (Tallow's tokenization) and their K and V are f32, so what differs is rounding. That is not little:
both round the inputs of products to int8, and an input moved by a hair falls on the other side of a step now and then, so that
after a few products the roundings of any two programs are as good as independent. Each is off by about .04 from products with
float inputs (torch, Q8_0 weights), and the mean over 500 tokens by chance by .003; hence 1,000 tokens. Fails unless the log-probability of the given token is apart by at most .05 in mean absolute and .005 in
mean, and both have the same most likely token wherever llama.cpp's leads by more than 8 times the bound of the mean absolute, .4.
"""
import argparse
import gzip
import pathlib
import sys

import xllamacpp

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))
from tallow_server import post, serve

MEAN_ABSOLUTE, MEAN = 0.05, 0.005


def tallow(binary: pathlib.Path, model: pathlib.Path, text: str, count: int) -> tuple[list[int], int, list[dict]]:
    """The text's first token ids, that of "a", and for each of the first but the very first what follows the ones before it: token, logprob, the best."""
    with serve(binary, model, "--k-quant", "f32", "--v-quant", "f32", "--max-num-seqs", "1") as server:
        ids = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"][:count]
        body = {"prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
        letter = server.post("/tokenize", {"prompt": "a", "add_special_tokens": False})["tokens"][-1]
        return ids, letter, server.post("/v1/completions", body)["choices"][0]["prompt_logprobs"][1:]


def llama(model: pathlib.Path, ids: list[int], letter: int) -> list[dict[int, float]]:
    """For each prefix of the ids the log-probabilities of all next tokens. `letter` is what the server is made to sample: behind half of a
    character it would tell nothing."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.verbosity, params.warmup = 2048, 1, 0, False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    result = []
    for end in range(1, len(ids)):
        # The log-probabilities that it tells are those before the bias.
        body = {"prompt": ids[:end], "n_predict": 1, "n_probs": 1000000, "temperature": 0, "cache_prompt": True, "logit_bias": [[letter, 1000]]}
        top = post(f"{server.listening_address}/completion", body)["completion_probabilities"][0]["top_logprobs"]
        result.append({entry["id"]: entry["logprob"] for entry in top})
    return result


def read_text(path: pathlib.Path) -> str:
    """A text, which may be packed."""
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt").read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tallow", type=pathlib.Path, default=ROOT / "target/release/tallow")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "data/wikitext2-test-sample.txt.gz")
    parser.add_argument("--tokens", type=int, default=1001)
    parser.add_argument("--mean-absolute", type=float, default=MEAN_ABSOLUTE, help="by how much the log-probabilities may differ in mean absolute")
    parser.add_argument("--mean", type=float, default=MEAN, help="and in mean")
    args = parser.parse_args()
    ids, letter, ours = tallow(args.tallow, args.model, read_text(args.text)[: 20 * args.tokens], args.tokens)
    theirs = llama(args.model, ids, letter)
    differences, clear, same, margin = [], 0, 0, 8 * args.mean_absolute
    for token, our, their in zip(ids[1:], ours, theirs, strict=True):
        differences.append(our[str(token)]["logprob"] - their[token])
        best, second = sorted(their, key=their.get, reverse=True)[:2]
        if their[best] - their[second] > margin:
            clear += 1
            same += max(our, key=lambda id: our[id]["logprob"]) == str(best)
    mean_absolute = sum(map(abs, differences)) / len(differences)
    mean = sum(differences) / len(differences)
    worst = max(map(abs, differences))
    spread = (sum((d - mean) ** 2 for d in differences) / len(differences)) ** 0.5 / len(differences) ** 0.5
    print(
        f"{args.model.name}: {len(differences)} tokens, log-probabilities apart by {mean_absolute:.4f} in mean absolute, {mean:+.5f} "
        f"(by chance: {spread:.5f}) in mean, {worst:.3f} at most; the same most likely token in {same} of {clear} places where llama.cpp's leads by {margin:.2g}"
    )
    if mean_absolute > args.mean_absolute or abs(mean) > args.mean or same < clear:
        sys.exit("they do not agree")


main()
