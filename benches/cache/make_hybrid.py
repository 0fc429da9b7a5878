#!/usr/bin/env python3
"""Writes a Qwen3.5 of 24 layers with random weights: the bundled fixture `models/tiny-qwen35`, scaled up. usage: make_hybrid.py OUT_DIR

Speed depends on shapes alone. 18 of the layers are gated delta nets, whose states are snapshots of 4.8 MB. needs: numpy"""
import json
import pathlib
import shutil
import sys

import numpy as np

SMALL = pathlib.Path(__file__).resolve().parents[2] / "models/tiny-qwen35"
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 512, 1536, 24, 8, 2, 128
KEY_HEADS, VALUE_HEADS, STATE_DIM, KERNEL = 16, 16, 64, 4


def bf16(values):
    """numpy has no bf16."""
    return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16).tobytes()


def shapes(config):
    inner, keys = VALUE_HEADS * STATE_DIM, KEY_HEADS * STATE_DIM
    yield "model.embed_tokens.weight", (config["vocab_size"], HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for layer, kind in enumerate(config["layer_types"]):
        prefix = f"model.layers.{layer}."
        parts = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
        parts |= {"mlp.gate_proj.weight": (FFN, HIDDEN), "mlp.up_proj.weight": (FFN, HIDDEN), "mlp.down_proj.weight": (HIDDEN, FFN)}
        if kind == "full_attention":
            parts |= {"self_attn.q_norm.weight": (HEAD_DIM,), "self_attn.k_norm.weight": (HEAD_DIM,)}
            # Queries and their gates.
            parts |= {"self_attn.q_proj.weight": (2 * HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM)}
            parts |= {f"self_attn.{name}_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN) for name in "kv"}
        else:
            parts |= {"linear_attn.A_log": (VALUE_HEADS,), "linear_attn.dt_bias": (VALUE_HEADS,), "linear_attn.norm.weight": (STATE_DIM,)}
            parts |= {f"linear_attn.in_proj_{name}.weight": (VALUE_HEADS, HIDDEN) for name in "ab"}
            parts |= {"linear_attn.in_proj_qkv.weight": (2 * keys + inner, HIDDEN), "linear_attn.in_proj_z.weight": (inner, HIDDEN)}
            parts |= {"linear_attn.conv1d.weight": (2 * keys + inner, 1, KERNEL), "linear_attn.out_proj.weight": (HIDDEN, inner)}
        yield from ((prefix + name, shape) for name, shape in parts.items())


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for file in SMALL.iterdir():
        if file.name not in ("model.safetensors", "config.json"):
            shutil.copy(file, out)
    config = json.loads((SMALL / "config.json").read_text()) | {
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "linear_num_key_heads": KEY_HEADS, "linear_num_value_heads": VALUE_HEADS,
        "linear_key_head_dim": STATE_DIM, "linear_value_head_dim": STATE_DIM, "linear_conv_kernel_dim": KERNEL,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * (LAYERS // 4), "max_position_embeddings": 32768,
    }
    (out / "config.json").write_text(json.dumps(config))
    dice, header, blobs, at = np.random.default_rng(0), {}, [], 0
    for name, shape in shapes(config):
        spread = 0.02 if len(shape) > 1 else 0.1
        blob = bf16(dice.standard_normal(shape, dtype=np.float32) * spread)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(out / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.writelines(blobs)


if __name__ == "__main__":
    main()
