#!/usr/bin/env bash
# GGUF files that another program writes and another one reads: each architecture of the tiny models as the `gguf` package writes it, in
# Tallow and in llama.cpp (`benches/peers/agreement.py`), token by token.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/files-python
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/files-requirements.txt
cargo build --release --locked
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# agree MODEL TYPE TOKENS MEAN_ABSOLUTE MEAN
agree() {
    "$venv/bin/python" scripts/goldens/to_gguf.py "models/$1" "$folder/$1-$2.gguf" "$2" >/dev/null
    "$venv/bin/python" benches/peers/agreement.py "$folder/$1-$2.gguf" --tokens "$3" --mean-absolute "$4" --mean "$5"
}
# Floats: llama.cpp's attention rounds K, V and the softmax to halves on the way. tiny-mistral is left out, since llama.cpp passes over its
# sliding window.
for model in tiny-llama31 tiny-smollm3 tiny-qwen2 tiny-qwen3 tiny-qwen3moe tiny-qwen35 tiny-qwen35moe; do
    agree "$model" f32 501 .01 .002
done
# Both programs round the inputs of products to 8 bits, each in its own way, and random weights magnify that. It sends some tokens of the
# mixtures, which are therefore left out, to another expert.
for model in tiny-llama31 tiny-smollm3 tiny-qwen2 tiny-qwen3 tiny-qwen35; do
    agree "$model" q8_0 201 .1 .03
done
agree tiny-qwen2 mixed 201 .2 .06
agree tiny-qwen2 grids 201 .2 .06
