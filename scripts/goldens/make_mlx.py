#!/usr/bin/env python3
"""Tiny random models as mlx-lm writes quantised ones, and what mlx-lm's own model of the same numbers answers, in fp32.

usage: make_mlx.py MODELS_DIR FIXTURES_DIR [NAME ...]        needs: pip install 'mlx[cpu]==0.32.4' mlx-lm==0.32.2
Writes MODELS_DIR/NAME: config.json, model.safetensors, generation_config.json, tokenizer_config.json, a link to a tokenizer
       FIXTURES_DIR/NAME.json, NAME.safetensors: as make_fixtures.py does
"""
import argparse, copy, json, os, pathlib
import mlx.core as mx
import mlx.nn as nn
import mlx_lm
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten
from mlx_lm.utils import _get_classes, quantize_model, save_config

base = dict(vocab_size=264, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096,
            bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-6, hidden_act="silu")


def affine(bits, group):
    return dict(bits=bits, group_size=group, mode="affine")


def mode(name, bits, group):
    return dict(bits=bits, group_size=group, mode=name)


# Configuration, type of scales, default, exceptions.
MODELS = {
    # The usual folder, with a layer of every other kind of affine quantisation, and one that is left as it is.
    "mlx-qwen3": (
        dict(base, architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=64, intermediate_size=128, head_dim=32,
             rope_theta=1000000.0, tie_word_embeddings=False),
        mx.bfloat16, affine(4, 64),
        {"self_attn.q_proj": affine(8, 64), "self_attn.k_proj": affine(5, 64), "self_attn.v_proj": False,
         "self_attn.o_proj": affine(3, 32), "mlp.up_proj": affine(2, 32), "mlp.down_proj": affine(6, 128)},
    ),
    # Names and forms that mlx-lm gives tensors of Qwen3.5 and of mixtures, and the modes beside affine.
    "mlx-qwen35moe": (
        dict(base, architectures=["Qwen3_5MoeForCausalLM"], model_type="qwen3_5_moe", hidden_size=32, intermediate_size=64,
             num_hidden_layers=2, head_dim=64, linear_key_head_dim=32, linear_value_head_dim=32, linear_num_key_heads=2,
             linear_num_value_heads=4, linear_conv_kernel_dim=4, full_attention_interval=2, num_experts=4, num_experts_per_tok=2,
             moe_intermediate_size=32, shared_expert_intermediate_size=32, tie_word_embeddings=False,
             rope_parameters=dict(rope_type="default", rope_theta=1000000.0, partial_rotary_factor=0.25)),
        mx.float16, affine(3, 32),
        {"mlp.gate": affine(8, 32), "mlp.shared_expert_gate": affine(8, 32), "switch_mlp.gate_proj": mode("mxfp4", 4, 32),
         "switch_mlp.down_proj": mode("nvfp4", 4, 16), "linear_attn.in_proj_qkv": mode("mxfp8", 8, 32)},
    ),
}


def random_model(config):
    """A model of float32 whose attention is far from uniform and whose logits spread."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(copy.deepcopy(config)))
    width = 0.11 * (64 / config["hidden_size"]) ** 0.5

    def weight(path, p):
        if path.endswith(("A_log", "dt_bias")):
            return mx.random.uniform(0, 1, p.shape)
        if p.ndim == 1:
            return 1 + 0.2 * mx.random.normal(p.shape)
        return (4 if "lm_head" in path else 1) * width * mx.random.normal(p.shape)

    model.update(tree_map_with_path(weight, model.parameters()))
    return model


def as_floats(model, config):
    """The same numbers in a model that is not quantised, in float32."""
    model_class, args_class = _get_classes(config)
    floats = model_class(args_class.from_dict(copy.deepcopy(config)))
    numbers = {}
    for path, module in tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module):
        for name, p in tree_flatten(module.parameters()):
            if name == "weight" and "scales" in module:
                f32 = lambda x: None if x is None else x.astype(mx.float32) if x.dtype != mx.uint8 else x
                p = mx.dequantize(p, f32(module.scales), f32(module.get("biases")), module.group_size, module.bits, module.mode, dtype=mx.float32)
            if name not in ("scales", "biases"):
                numbers[f"{path}.{name}"] = p.astype(mx.float32)
    own = dict(tree_flatten(model.parameters()))
    numbers |= {name: own[name].astype(mx.float32) for name, _ in tree_flatten(floats.parameters()) if name not in numbers}
    floats.load_weights(list(numbers.items()))
    floats.eval()
    return floats


def greedy(model, ids):
    out = []
    for _ in range(32):
        out.append(int(mx.argmax(model(mx.array([ids + out]))[0, -1])))
    return out


def clear(model, ids):
    """32 greedy tokens, each ahead of the second best by more than rounding can turn"""
    out = greedy(model, ids)
    two = mx.sort(model(mx.array([ids + out[:-1]]))[0, len(ids) - 1 :], axis=-1)[:, -2:]
    return out if len(set(out)) >= 8 and mx.min(two[:, 1] - two[:, 0]).item() > 0.02 else None


def fixtures(model, name, vocabulary, out):
    prompts, tensors = [], {}
    for i, count in enumerate((9, 64, 150)):
        while (tokens := clear(model, ids := mx.random.randint(3, vocabulary - 8, (count,)).tolist())) is None:
            pass
        logits = model(mx.array([ids]))[0]
        if i == 0:
            tensors = {"prompt0.logits": mx.contiguous(logits[:4]), "prompt0.ids": mx.array(ids, mx.int32)}
        tops = []
        for p in sorted({0, count // 3, count // 2, count - 2, count - 1}):
            top = mx.argsort(-logits[p])[:20]
            tops.append(dict(position=p, ids=top.tolist(), logits=[round(x, 5) for x in logits[p][top].tolist()]))
        prompts.append(dict(text=None, ids=ids, greedy_32_ignore_eos=tokens, top20=tops))
    by = f"mlx-lm {mlx_lm.__version__}, mlx {mx.__version__}"
    json.dump(dict(model=name, dtype="float32", by=by, prompts=prompts), open(out / f"{name}.json", "w"), separators=(",", ":"))
    mx.save_safetensors(str(out / f"{name}.safetensors"), tensors)
    print(name, [p["greedy_32_ignore_eos"][:8] for p in prompts])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("models", type=pathlib.Path), ap.add_argument("fixtures", type=pathlib.Path), ap.add_argument("names", nargs="*")
    a = ap.parse_args()
    mx.set_default_device(mx.cpu)
    for name, (config, dtype, default, exceptions) in MODELS.items():
        if a.names and name not in a.names:
            continue
        mx.random.seed(7)
        model = random_model(config)
        model.set_dtype(dtype)
        of = lambda path, _: next((how for end, how in exceptions.items() if path.endswith(end)), True)
        quantised, written = quantize_model(model, config, default["group_size"], default["bits"], quant_predicate=of)
        # mlx-lm leaves a layer out that its predicate denies; other converters write it down.
        written["quantization"] |= {f"model.layers.0.{end}": False for end, how in exceptions.items() if how is False}
        folder = a.models / name
        folder.mkdir(parents=True, exist_ok=True)
        mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(quantised.parameters())), {"format": "mlx"})
        save_config(dict(written), folder / "config.json")
        json.dump(dict(bos_token_id=1, eos_token_id=2), open(folder / "generation_config.json", "w"))
        names = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", add_bos_token=False)
        json.dump(names, open(folder / "tokenizer_config.json", "w"), indent=1)
        if not (folder / "tokenizer.json").is_symlink():
            os.symlink("../tiny-qwen3/tokenizer.json", folder / "tokenizer.json")
        fixtures(as_floats(quantised, config), name, config["vocab_size"], a.fixtures)


main()
