#!/usr/bin/env python3
"""RoPE frequencies that transformers computes for scaled contexts -> crates/models/tests/goldens/rope.json
usage: rope.py OUT.json        needs: torch transformers"""
import json, sys
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

base = dict(hidden_size=512, num_attention_heads=4, num_key_value_heads=2, head_dim=128, max_position_embeddings=32768)
scalings = [
    dict(rope_type="default", rope_theta=1e6),
    dict(rope_type="linear", rope_theta=1e4, factor=4.0),
    dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768),
    dict(rope_type="yarn", rope_theta=1.5e5, factor=32.0, original_max_position_embeddings=4096, beta_fast=32.0, beta_slow=1.0, truncate=False),
    dict(rope_type="yarn", rope_theta=1e4, factor=40.0, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=1.0, beta_fast=16.0, beta_slow=2.0),
    dict(rope_type="yarn", rope_theta=1e4, factor=2.0, original_max_position_embeddings=4096, attention_factor=1.5),
]
cases = []
for scaling in scalings:
    rope = LlamaRotaryEmbedding(LlamaConfig(**base, rope_parameters=scaling))
    fields = {k: v for k, v in base.items() if k != "hidden_size"} | dict(rope_parameters=scaling, rope_theta=None)
    cases.append(dict(config=fields, inv_freq=rope.inv_freq.tolist(), attention_factor=float(rope.attention_scaling), by="transformers " + transformers.__version__))
open(sys.argv[1], "w").write("[" + ",\n".join(map(json.dumps, cases)) + "]\n")
