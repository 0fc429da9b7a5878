#!/usr/bin/env bash
# Writes docs/quality.md and its plots anew: measure-quality.sh [FOLDER]. It takes the real models from FOLDER (default: target/real-models),
# where they are fetched to if they are not there, and the two bundled ones. About an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/real-models}
scripts/fetch-real-models.sh "$folder"
cargo build --release --locked -p tallow
out=$(mktemp)
trap 'rm -f "$out"' EXIT
cat >"$out" <<'TEXT'
# What each K/V pair costs

Two models that people run come first, then the two small ones that come with Tallow. Each is judged against itself with
an f32 cache, every token passing through the cache by the chunked prefill that serving uses:

- `nats` is the loss above that with the f32 cache, a token; `KL` is the Kullback-Leibler divergence of the next token's
  distribution from that with the f32 cache, nats a token; `same top-1` is the share of places with the same likeliest
  token. What bf16 and f16 show is the floor: products of quantised weights round activations to 8 bits, so that the
  smallest change of a cache moves some of them.
- `ggml8`, `ggml5`, `ggml4` are llama.cpp's cache types q8_0, q5_0, q4_0; `rotated` is how llama.cpp stores them since
  April 2026: each head times a Walsh-Hadamard matrix first (its pull request 21038).
- `wikitext` and `code` are windows of 2,048 tokens, each begun anew. `chat` is a conversation with tool calls, written
  by the model's own chat template. `document` is one long sequence, since loss gathers over length: its last columns
  are KL by ranges of positions. [data/README.md](../data/README.md) tells where the texts are from.
- Pass keys, of the small models: the digits that are found again in texts of 1,024, 2,048 and 4,096 tokens, four keys
  in each at four of five depths, each between two sentences, all asked for.

This file and the plots are written by `scripts/measure-quality.sh`. `tallow eval MODEL` does the same for any model.
`--kv-preset auto` takes no preset with a KL above .05 on the model at hand, as
`tallow eval MODEL --texts wikitext --tokens 2048 --window 2048` tells it.
TEXT

# judge NAME MODEL [FLAG..]: begins the model's section, with a plot of what is judged here.
judge() {
    local name=$1 model=$2
    shift 2
    printf '\n## %s\n\n![bits an element against KL](quality-%s.svg)\n\n' "$name" "$name" >>"$out"
    target/release/tallow eval "$model" --plot "docs/quality-$name.svg" "$@" >>"$out"
}

# The presets and their rivals are judged on the models that people run, every pair of formats on the small ones, for which that takes minutes.
# The document is as long as SmolLM2's context.
texts=wikitext,code,chat,document
judge smollm2-135m "$folder/smollm2-135m-instruct-q4_1.gguf" --texts "$texts"
judge qwen2.5-coder-0.5b "$folder/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf" --texts "$texts"
judge demo models/demo --texts wikitext --pairs all --needles
judge eval models/eval --texts wikitext --pairs all --needles
mv "$out" docs/quality.md
trap - EXIT
