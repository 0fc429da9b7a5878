#!/usr/bin/env python3
"""The tables of docs/machines.md: what models with a short name have of context on Macs of 8, 16, 24 and 32 GB.

usage: plan-machines.py FOLDER [--tallow PROGRAM]        needs: numpy gguf==0.19.0

Asks `tallow plan --machine` about GGUF files in FOLDER that have their headers alone: `plan` reads no more. Shapes are
those that the models' authors publish, types of weights those of llama.cpp's Q4_K_M, tokens are stand-ins.
"""
import argparse
import json
import subprocess
from math import prod
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# family, hidden size, layers, heads, kv heads, width of feed-forward layers, tokens, context, experts
MODELS = {
    "llama3.2:3b": ("llama", 3072, 28, 24, 8, 8192, 128_256, 131_072, 0),
    "qwen3:4b": ("qwen3", 2560, 36, 32, 8, 9728, 151_936, 40_960, 0),
    "qwen3.5:4b": ("qwen35", 2560, 32, 16, 4, 9216, 248_320, 262_144, 0),
    "qwen2.5-coder:7b": ("qwen2", 3584, 28, 28, 4, 18_944, 152_064, 32_768, 0),
    "llama3.1:8b": ("llama", 4096, 32, 32, 8, 14_336, 128_256, 131_072, 0),
    "qwen3:8b": ("qwen3", 4096, 36, 32, 8, 12_288, 151_936, 40_960, 0),
    "qwen3.5:9b": ("qwen35", 4096, 32, 16, 4, 12_288, 248_320, 262_144, 0),
    "qwen3:14b": ("qwen3", 5120, 40, 40, 8, 17_408, 151_936, 40_960, 0),
    "qwen3:30b": ("qwen3moe", 2048, 48, 32, 4, 768, 151_936, 40_960, 128),
    "qwen3-coder:30b": ("qwen3moe", 2048, 48, 32, 4, 768, 151_936, 262_144, 128),
}
WITHOUT_A_HEAD = ("llama3.2:3b", "qwen3:4b", "qwen3.5:4b")
MACHINES = ("M2 8GB", "M2 16GB", "M4 24GB", "M2 Pro 32GB")
EXPERTS_USED = 8
# Of Qwen3.5: one layer of so many attends; heads of keys and values of the others, and their size.
INTERVAL, KEY_HEADS, VALUE_HEADS, STATE = 4, 16, 32, 128


def head_dim(family):
    return 256 if family == "qwen35" else 128


def delta_net(hidden, plain):
    """The tensors of a layer of Qwen3.5 that does not attend, beside its norms and its feed-forward layer."""
    values = VALUE_HEADS * STATE
    channels = 2 * KEY_HEADS * STATE + values
    return [
        ("attn_qkv", [channels, hidden], plain),
        ("attn_gate", [values, hidden], plain),
        ("ssm_out", [hidden, values], plain),
        ("ssm_beta", [VALUE_HEADS, hidden], Type.F32),
        ("ssm_alpha", [VALUE_HEADS, hidden], Type.F32),
        ("ssm_conv1d", [channels, 4], Type.F32),
        ("ssm_norm", [STATE], Type.F32),
    ]


def tensors(name):
    """Yields the name, the dimensions and the type of each tensor."""
    family, hidden, layers, heads, kv_heads, wide, vocab, _, experts = MODELS[name]
    # Q4_K_M has more bits for the head, and in some layers for values and for what ends a feed-forward layer.
    plain, better, size = Type.Q4_K, Type.Q6_K, head_dim(family)
    mixture, ending = ([experts], "_exps") if experts else ([], "")
    yield "token_embd", [vocab, hidden], better if name in WITHOUT_A_HEAD else plain
    yield "output_norm", [hidden], Type.F32
    if name not in WITHOUT_A_HEAD:
        yield "output", [vocab, hidden], better
    for layer in range(layers):
        eighth = layers // 8
        some = better if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2 else plain
        attends = family != "qwen35" or (layer + 1) % INTERVAL == 0
        norms = [("attn_norm", [hidden]), ("post_attention_norm" if family == "qwen35" else "ffn_norm", [hidden])]
        if family.startswith("qwen3") and attends:
            norms += [("attn_q_norm", [size]), ("attn_k_norm", [size])]
        if experts:
            norms.append(("ffn_gate_inp", [experts, hidden]))
        # The queries of Qwen3.5 have gates beside them.
        queries = (2 if family == "qwen35" else 1) * heads * size
        mixer = delta_net(hidden, plain)
        if attends:
            mixer = [
                ("attn_q", [queries, hidden], plain),
                ("attn_k", [kv_heads * size, hidden], plain),
                ("attn_v", [kv_heads * size, hidden], some),
                ("attn_output", [hidden, heads * size], plain),
            ]
        for part, shape, ty in [(*norm, Type.F32) for norm in norms] + mixer + [
            (f"ffn_gate{ending}", [*mixture, wide, hidden], plain),
            (f"ffn_up{ending}", [*mixture, wide, hidden], plain),
            (f"ffn_down{ending}", [*mixture, hidden, wide], some),
        ]:
            yield f"blk.{layer}.{part}", shape, ty


def write(path, name):
    """Writes a model's headers, and makes the file as long as it would be with its weights."""
    family, hidden, layers, heads, kv_heads, wide, vocab, context, experts = MODELS[name]
    writer = gguf.GGUFWriter(path, family)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim(family))
    if family == "qwen35":
        writer.add_rope_dimension_count(head_dim(family) // 4)
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_group_count(KEY_HEADS)
        writer.add_ssm_time_step_rank(VALUE_HEADS)
        writer.add_ssm_inner_size(VALUE_HEADS * STATE)
    writer.add_feed_forward_length(wide)
    writer.add_context_length(context)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(EXPERTS_USED)
        writer.add_expert_feed_forward_length(wide)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if family == "llama" else "qwen2")
    writer.add_token_list([f"<{n}>" for n in range(vocab)])
    writer.add_token_merges(["< 0"])
    weights = 0
    for tensor, shape, ty in tensors(name):
        elements, block = gguf.GGML_QUANT_SIZES[ty]
        size = prod(shape) // elements * block
        kind, raw = (np.float32, None) if ty == Type.F32 else (np.uint8, ty)
        stored = shape if raw is None else [*shape[:-1], shape[-1] // elements * block]
        writer.add_tensor_info(f"{tensor}.weight", stored, np.dtype(kind), size, raw_dtype=raw)
        weights += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with open(path, "r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + weights)


def row(plan):
    """The cells of a plan's row; `None` where the model does not fit, or needs no preset for all of its context."""
    start, presets = plan["start"], {preset["preset"]: preset for preset in plan["presets"]}
    if start is None or presets["bf16"]["max_context"] == plan["trained_context"]:
        return None
    total = sum(term["bytes"] for term in plan["memory"])
    taken = next(name for name, preset in presets.items() if preset["start"] == start)
    contexts = [f"{presets[name]['max_context']:,}" for name in ("bf16", "near-lossless", "balanced")]
    return [f"{total / 2**30:.1f} GiB", f"`{taken}`", f"{start['max_model_len']:,}", *contexts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tallow", default="target/release/tallow")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for machine in MACHINES:
        print(f"\n| {machine} | in all | `auto` takes | context | `bf16` | `near-lossless` | `balanced` |")
        print("|---|---|---|---|---|---|---|")
        for name in MODELS:
            file = args.folder / f"{name.replace(':', '-')}.gguf"
            if not file.exists():
                write(file, name)
            command = [args.tallow, "plan", file, "--machine", machine, "--json"]
            cells = row(json.loads(subprocess.run(command, capture_output=True, text=True).stdout))
            if cells:
                print(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
