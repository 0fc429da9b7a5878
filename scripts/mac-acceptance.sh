#!/usr/bin/env bash
# What only a Mac can show, in one command and one report to send: mac-acceptance-DATE.txt.
#   usage: scripts/mac-acceptance.sh [MODEL]
# MODEL: a folder, a GGUF file or a model of the hub; the bundled one if none is named, better Qwen/Qwen3-0.6B or
# meta-llama/Llama-3.2-1B-Instruct, which are fetched. Takes an hour or two: plug the Mac in and close what else computes. Move a window
# now and then, above all while the longest contexts are filled: whether it stutters is the one thing that you have to tell us.
#
# 1 build           as everybody builds
# 2 kernels         every pipeline, every kernel and format on the GPU, and what is row by row
# 3 families        Llama, Qwen2, Qwen3, Qwen3-MoE and Qwen3.5 on the GPU beside the CPU; a context over 8,192 tokens, with plain and with
#                   quantised weights, with a wait a layer and without
# 4 tests           all others, on the CPU
# 5 quality         what each way to store the cache costs, on the GPU and on the CPU, and of quantised weights on both
# 6 speed           of MODEL, with plain and quantised weights, by each kernel that decodes, of one client and of several; of a long
#                   context, a tiny mixture and a tiny recurrent model
# 7 capacity        the longest context that fits, filled
# 8 memory          whether the server grows while it decodes 2,000 tokens
# The report ends with one page (scripts/mac-summary.py): what is right, what is fast, and what is not.
set -uo pipefail
cd "$(dirname "$0")/.."
model=${1:-models/demo}

[ "$(uname -s)-$(uname -m)" = Darwin-arm64 ] || { echo "this runs on an Apple Silicon Mac, not on $(uname -s) $(uname -m)" >&2; exit 2; }
lacking() { echo "missing: $1 ($2)" >&2; missing=1; }
xcrun --find clang >/dev/null 2>&1 || lacking "Apple's command line tools" "xcode-select --install"
command -v cargo >/dev/null || lacking cargo "Rust, from https://rustup.rs"
# macOS's own python3 only asks for the command line tools where those are missing.
[ -n "${missing:-}" ] || python3 -c '' 2>/dev/null || lacking python3 "xcode-select --install"
for tool in curl sysctl sw_vers system_profiler tee; do
    command -v "$tool" >/dev/null || lacking "$tool" "part of macOS: is /usr/bin and /usr/sbin in PATH?"
done
[ -z "${missing:-}" ] || exit 2

report=mac-acceptance-$(date +%Y-%m-%d-%H%M).txt
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
failed=()
# Runs a command, its output in the report and on the screen; goes on after a failure.
part() {
    local name=$1
    shift
    printf '\n=== %s: %s\n' "$name" "$*" | tee -a "$report"
    local start=$SECONDS
    "$@" 2>&1 | tee -a "$report"
    local status=${PIPESTATUS[0]}
    local outcome
    outcome=$([ "$status" = 0 ] && echo passed || echo "FAILED ($status)")
    printf -- '--- %s: %s after %s s\n' "$name" "$outcome" $((SECONDS - start)) | tee -a "$report"
    printf '%s\t%s\n' "$name" "$outcome" >>"$results/parts.tsv"
    [ "$status" = 0 ] || failed+=("$name")
}

{
    echo "Tallow $(git rev-parse HEAD 2>/dev/null || echo '(no git)') on $(date)"
    cargo --version
    sysctl -n machdep.cpu.brand_string hw.memsize hw.model
    sw_vers
    system_profiler SPDisplaysDataType | grep -E 'Chipset|Cores|Metal'
    pmset -g ps 2>/dev/null | head -n 1
} 2>&1 | tee "$report"

tallow=target/release/tallow
part "1 build" cargo build --release --locked
if [ ! -x "$tallow" ]; then
    echo "without the program nothing else can run; the report: $report"
    exit 1
fi
[ -e "$model" ] || part "1 fetch" "$tallow" pull "$model"
part "2 kernels" cargo test --locked -p metal --test mac -- --nocapture
part "3 families" cargo test --locked -p engine --test mac -- --nocapture
# Without Metal: these compare bits, which the CPU alone promises.
part "4 tests" cargo test --locked --workspace --no-default-features
part "5 quality on the GPU" "$tallow" eval models/eval --device metal --pairs all --needles --json "$results/quality.json"
for quant in none q8_0; do
    # Without the flag: weights as they are stored.
    [ $quant = none ] && flags=() || flags=(--weight-quant $quant)
    for device in metal cpu; do
        part "5 quality, weights $quant, $device" "$tallow" eval models/eval --device $device "${flags[@]+"${flags[@]}"}" \
            --texts wikitext --tokens 4096 --json "$results/quality-$quant-$device.json"
    done
done
bench() {
    local name=$1
    shift
    part "6 speed, $name" "$tallow" bench "$model" --rounds 2 --json "$results/speed-$name.json" "$@"
}
bench gpu --device metal --contexts 512,2048,3500 --batches 1,2,4
bench gpu-vec --device metal --decode-kernel vec --contexts 512,2048,3500 --batches 1,2,4
bench gpu-q8_0 --device metal --weight-quant q8_0 --contexts 512,2048 --batches 1,2,4
for products in exact fast; do
    bench gpu-q4_k-$products --device metal --weight-quant q4_k --gpu-products $products --contexts 512,2048 --batches 1,2,4
done
# The bundled model's context ends before.
[ "$model" = models/demo ] || bench gpu-long --device metal --contexts 9000 --batches 1,2 --kv-preset balanced
bench cpu --device cpu --contexts 512,2048 --batches 1,2
part "6 speed of a mixture" "$tallow" bench models/tiny-qwen3moe --device metal --contexts 512 --batches 1,4 --kv-preset bf16
part "6 speed of a recurrent model" "$tallow" bench models/tiny-qwen35 --device metal --contexts 512 --batches 1,4 --kv-preset bf16

# Serves the model on the GPU with these flags, and sets server, log and url once it is healthy. For a subshell, whose end ends the server.
serve() {
    log=$(mktemp)
    "$tallow" serve "$model" --device metal --port 0 "$@" 2>"$log" &
    server=$!
    trap 'kill "$server" 2>/dev/null; rm -f "$log"' EXIT
    for _ in $(seq 600); do
        url=$(grep -oE 'http://[0-9.:]+' "$log" | head -n 1)
        [ -n "$url" ] && curl -fs "$url/health" >/dev/null && return
        kill -0 "$server" 2>/dev/null || { cat "$log"; echo "the server ended before it listened"; exit 1; }
        sleep 0.5
    done
}

# The longest context that the presets' pools hold, really filled: the server takes a prompt that is all but a few tokens of it. Runs in
# a subshell of its own, so that its server ends with it.
capacity() (
    preset=$1
    serve --kv-preset "$preset" --max-num-seqs 1
    grep -E 'KV cache|GPU memory|compiled|centring|on a GPU' "$log"
    python3 - "$url" <<'PY'
import gzip, json, sys, time, urllib.request
base = sys.argv[1]
def post(path, body):
    request = urllib.request.Request(base + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=7200))
limit = json.load(urllib.request.urlopen(base + "/v1/models"))["data"][0]["max_model_len"]
text = gzip.open("data/wikitext2-test-sample.txt.gz", "rt").read()
tokens = post("/tokenize", {"prompt": text})["tokens"]
prompt = (tokens * (limit // len(tokens) + 1))[: limit - 16]
start = time.time()
answer = post("/v1/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0})
print(f"{limit} tokens of context, {len(prompt)} of prompt answered in {time.time() - start:.1f} s: {answer['usage']}")
PY
    status=$?
    footprint "$server" 2>/dev/null | grep -m1 -i 'footprint'
    [ $status = 0 ] || tail -n 20 "$log"
    kill -TERM "$server"
    wait "$server"
    exit $status
)
for preset in bf16 balanced auto; do
    part "7 capacity, $preset" capacity "$preset"
done

# The server's memory after 500 tokens and after 2,000 more: a driver's objects that are never freed would be some .1 MB a token.
growth() (
    serve --max-num-seqs 2
    resident() { ps -o rss= -p "$server"; }
    answer() { curl -fsS "$url/v1/completions" -H 'content-type: application/json' -d "{\"prompt\": \"The\", \"max_tokens\": $1, \"ignore_eos\": true}" >/dev/null; }
    answer 500 || exit 1
    before=$(resident)
    for _ in $(seq 4); do answer 500 || exit 1; done
    after=$(resident)
    echo "resident after 500 tokens: $before KiB, after 2,000 more: $after KiB"
    echo "$((after - before))" >"$results/growth.txt"
    [ $((after - before)) -lt 65536 ]
)
part "8 memory" growth

for file in "$results"/*.json; do
    [ -e "$file" ] && { printf '\n=== %s\n' "$(basename "$file")"; cat "$file"; } >>"$report"
done
printf '\n=== the page\n' | tee -a "$report"
scripts/mac-summary.py "$results" | tee -a "$report"
printf '\n%s\n' "$([ ${#failed[@]} = 0 ] && echo 'everything passed' || echo "failed: ${failed[*]}")" | tee -a "$report"
echo "the report to send: $report (and whether the display stuttered)"
[ ${#failed[@]} = 0 ]
