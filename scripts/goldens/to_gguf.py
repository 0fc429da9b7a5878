#!/usr/bin/env python3
"""A Llama, Mistral, SmolLM3, Qwen2, Qwen3, Qwen3-MoE, Qwen3.5 or Qwen3.5-MoE folder as GGUF, by the `gguf` package and the rules of
llama.cpp's convert_hf_to_gguf.py.

usage: to_gguf.py MODEL_DIR OUT.gguf TYPE [--layers N] [--shards N]        needs: numpy gguf==0.19.0
TYPE: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1, or mixed or grids: another type for each projection, of K types or of IQ types and MXFP4, whose
blocks are filled at random (the package has no quantiser for them), and the first values of each tensor in OUT.json.
Vectors, routers of mixtures and the gates and convolutions of delta nets are f32.
"""
import argparse, json, math, pathlib, struct
import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("type")
parser.add_argument("--layers", type=int, help="only the first ones")
parser.add_argument("--shards", type=int, default=1)
args = parser.parse_args()
config = json.loads((args.model / "config.json").read_text())
tokenizer = json.loads((args.model / "tokenizer.json").read_text())
tokens_config = json.loads((args.model / "tokenizer_config.json").read_text())
generation = json.loads((args.model / "generation_config.json").read_text())
ARCH = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3moe",
        "Qwen3_5ForCausalLM": "qwen35", "Qwen3_5MoeForCausalLM": "qwen35moe", "SmolLM3ForCausalLM": "smollm3"}
arch = ARCH[config["architectures"][0]]
layers = args.layers or config["num_hidden_layers"]
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
head_dim = config.get("head_dim") or config["hidden_size"] // heads
rng = np.random.default_rng(0)
MIXTURES = {"mixed": {
    "token_embd": "Q4_0", "attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q6_K", "attn_output": "Q3_K",
    "ffn_gate": "Q2_K", "ffn_up": "Q5_1", "ffn_down": "Q4_1",
}, "grids": {
    "token_embd": "IQ4_NL", "attn_q": "IQ4_XS", "attn_k": "IQ3_S", "attn_v": "IQ3_XXS", "attn_output": "IQ2_S", "ffn_gate": "IQ2_XS", "ffn_up": "IQ2_XXS",
    "ffn_down": "MXFP4",
}}
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate", "linear_attn.in_proj_b": "ssm_beta", "linear_attn.in_proj_a": "ssm_alpha",
    "linear_attn.conv1d": "ssm_conv1d", "linear_attn.norm": "ssm_norm", "linear_attn.out_proj": "ssm_out",
}
EXACT = ("mlp.gate", "mlp.shared_expert_gate", "linear_attn.conv1d", "linear_attn.in_proj_a", "linear_attn.in_proj_b")
hybrid = arch in ("qwen35", "qwen35moe")
if hybrid:
    NAMES["post_attention_layernorm"] = "post_attention_norm"
    key_heads, value_heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key_dim, value_dim = config["linear_key_head_dim"], config["linear_value_head_dim"]


def tiled(x, width, axis=0):
    """Value heads of `width` rows or columns, those of a key head one after the other, in the order of llama.cpp: the first ones of all key heads first."""
    x = np.moveaxis(x, axis, 0)
    x = x.reshape(key_heads, value_heads // key_heads, width, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
    return np.moveaxis(x, 0, axis)


def of_delta_net(rest, x):
    """A tensor of a gated delta net as llama.cpp's files have it."""
    keys = 2 * key_heads * key_dim
    match rest:
        case "in_proj_qkv" | "conv1d":
            x = x.squeeze()
            return np.concatenate([x[:keys], tiled(x[keys:], value_dim)])
        case "in_proj_z":
            return tiled(x, value_dim)
        case "in_proj_a" | "in_proj_b":
            return tiled(x, 1)
        case "out_proj":
            return tiled(x, value_dim, axis=1)
    return x


def tensors():
    """All tensors of the folder's single file as f32."""
    data = (args.model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = info["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        if info["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[info["dtype"]]).astype(np.float32)
        yield name, values.reshape(info["shape"])


def permute(rows, n):
    """Half-split RoPE pairs to interleaved ones."""
    return rows.reshape(n, 2, rows.shape[0] // n // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def random_blocks(kind, shape):
    """Blocks of random codes whose values are about as large as a weight's."""
    length, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (math.prod(shape) // length, size), np.uint8)
    if kind == Type.MXFP4:
        blocks[:, 0] = 122  # an exponent: 2^(122 - 128)
        return blocks.reshape(*shape[:-1], -1)
    at, scale = {Type.IQ4_NL: ([0], 1.3e-3), Type.IQ4_XS: ([0], 7e-5), Type.IQ3_S: ([0], 6e-4), Type.IQ3_XXS: ([0], 8e-4), Type.IQ2_S: ([0], 2e-3),
                 Type.IQ2_XS: ([0], 2e-3), Type.IQ2_XXS: ([0], 2e-3), Type.Q2_K: ([80, 82], 4e-3), Type.Q3_K: ([108], 1e-3), Type.Q4_K: ([0, 2], 3e-4), Type.Q5_K: ([0, 2], 1e-4), Type.Q6_K: ([208], 3e-5)}[kind]
    for offset in at:
        blocks[:, offset : offset + 2] = np.float16(scale * rng.uniform(0.5, 1.5, (len(blocks), 1))).view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


writer = gguf.GGUFWriter(args.out, arch, split_max_tensors=0)
if args.shards > 1:
    count = sum(1 for _ in tensors())
    writer = gguf.GGUFWriter(args.out, arch, split_max_tensors=math.ceil((count + 1) / args.shards))
expected = {}


def add(name, values, kind):
    if kind in MIXTURES:
        kind = MIXTURES[kind][name.removesuffix(".weight").split(".")[-1]]
    kind = Type[kind.upper()]
    is_random = kind.name.endswith("_K") or kind.name.startswith("IQ") or kind == Type.MXFP4
    data = random_blocks(kind, values.shape) if is_random else gguf.quants.quantize(values, kind)
    writer.add_tensor(name, data, raw_dtype=kind)
    values = gguf.quants.dequantize(data, kind)
    expected[name] = dict(type=kind.name, row=[float(x) for x in values.reshape(-1, values.shape[-1])[-1][:40]])


experts = {}
for name, values in tensors():
    stem, part = name.rsplit(".", 1)
    if stem in ("model.embed_tokens", "lm_head"):
        add({"model.embed_tokens": "token_embd", "lm_head": "output"}[stem] + f".{part}", values, args.type)
    elif stem == "model.norm":
        writer.add_tensor("output_norm.weight", values + hybrid)
    else:
        _, _, layer, rest = stem.split(".", 3)
        if int(layer) >= layers:
            continue
        if part == "A_log":
            writer.add_tensor(f"blk.{layer}.ssm_a", tiled(-np.exp(values), 1))
            continue
        if part == "dt_bias":
            writer.add_tensor(f"blk.{layer}.ssm_dt.bias", tiled(values, 1))
            continue
        if rest.startswith("linear_attn."):
            values = of_delta_net(rest.removeprefix("linear_attn."), values)
        elif hybrid and rest.endswith("norm"):
            values = values + 1
        if rest.startswith("mlp.experts."):
            _, _, number, projection = rest.split(".")
            experts.setdefault((layer, projection), {})[int(number)] = values
            continue
        if arch in ("llama", "smollm3") and rest in ("self_attn.q_proj", "self_attn.k_proj"):
            values = permute(values, heads if rest.endswith("q_proj") else kv_heads)
        target = f"blk.{layer}.{NAMES[rest]}.{part}"
        if values.ndim == 1 or rest in EXACT:
            writer.add_tensor(target, values.squeeze() if rest == "mlp.shared_expert_gate" else values)
        else:
            add(target, values, args.type)
for (layer, projection), by_number in experts.items():
    stacked = np.stack([by_number[i] for i in sorted(by_number)])
    add(f"blk.{layer}.ffn_{projection.removesuffix('_proj')}_exps.weight", stacked, args.type)

rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
writer.add_name(args.model.name)
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_block_count(layers)
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_key_length(head_dim)
writer.add_value_length(head_dim)
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_rope_freq_base(rope["rope_theta"])
writer.add_vocab_size(config["vocab_size"])
if arch in ("llama", "smollm3"):
    writer.add_rope_dimension_count(head_dim)
if hybrid:
    writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(key_dim)
    writer.add_ssm_group_count(key_heads)
    writer.add_ssm_time_step_rank(value_heads)
    writer.add_ssm_inner_size(value_dim * value_heads)
    writer.add_full_attention_interval(config.get("full_attention_interval") or config["layer_types"].index("full_attention") + 1)
if config.get("sliding_window") and config.get("use_sliding_window", True):
    writer.add_sliding_window(config["sliding_window"])
if "num_experts_per_tok" in config:
    writer.add_expert_count(config.get("num_experts") or config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in config:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
kind = rope.get("rope_type") or rope.get("type") or "default"
if kind == "linear":
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope["factor"])
elif kind == "llama3":
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
elif kind != "default":
    raise SystemExit(f"RoPE of type {kind} is not written")

added = {t["id"]: t for t in tokenizer["added_tokens"]}
vocab = {id: token for token, id in tokenizer["model"]["vocab"].items()} | {id: t["content"] for id, t in added.items()}
size = config["vocab_size"]
merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen35" if hybrid else "qwen2")
writer.add_token_list([vocab.get(i, f"[PAD{i}]") for i in range(size)])
writer.add_token_types([(3 if added[i]["special"] else 4) if i in added else 1 if i in vocab else 5 for i in range(size)])
if merges:
    writer.add_token_merges(merges)
else:
    # llama.cpp wants one.
    writer.add_token_merges(["a b"])
by_token = {token: id for id, token in vocab.items()}
for role in ("bos", "eos"):
    content = tokens_config.get(f"{role}_token")
    content = content["content"] if isinstance(content, dict) else content
    if content in by_token:
        getattr(writer, f"add_{role}_token_id")(by_token[content])
eos = generation.get("eos_token_id")
if isinstance(eos, list) and len(eos) > 1:
    writer.add_eot_token_id(eos[1] if eos[0] == by_token.get(tokens_config.get("eos_token")) else eos[0])
single = (tokenizer.get("post_processor") or {}).get("processors", [])
writer.add_add_bos_token(tokens_config.get("add_bos_token", any(p["type"] == "TemplateProcessing" for p in single)))
if isinstance(tokens_config.get("chat_template"), str):
    writer.add_chat_template(tokens_config["chat_template"])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
if args.type in MIXTURES:
    args.out.with_suffix(".json").write_text(json.dumps(dict(by=f"gguf {args.model.name}", tensors=expected)) + "\n")
