#!/usr/bin/env bash
# Writes docs/quality.md and its plots anew: what each K/V pair costs the two bundled models (about an hour on two cores).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked
out=$(mktemp)
trap 'rm -f "$out"' EXIT
cat >"$out" <<'TEXT'
# What each K/V pair costs

Against an f32 cache, over 16,384 tokens of `data/wikitext2-test-sample.txt` (wikitext-2, CC BY-SA), every token passing
through the cache by the chunked prefill that serving uses. `ggml8`, `ggml5`, `ggml4` are llama.cpp's q8_0, q5_0, q4_0.
Then the digits of pass keys that the model finds again in texts of 1,024, 2,048 and 4,096 tokens: 40 of each, four keys
in each at four of five depths, each between two sentences, all asked for.

This file and the plots are written by `scripts/measure-quality.sh`. `tallow eval MODEL` does the same for any model.
TEXT
for model in demo eval; do
    printf '\n## %s\n\n![bits an element against KL](quality-%s.svg)\n\n' "$model" "$model" >>"$out"
    target/release/tallow eval "models/$model" --plot "docs/quality-$model.svg" --needles --needle-texts 40 >>"$out"
done
mv "$out" docs/quality.md
trap - EXIT
