#!/usr/bin/env bash
# What only a Mac can show, in one command: builds, runs every test on the GPU, judges quality and speed, fills the longest context, and
# writes one report to send: mac-acceptance-DATE.txt. usage: scripts/mac-acceptance.sh [MODEL]   (default: the bundled one; better
# Qwen/Qwen3-0.6B or meta-llama/Llama-3.2-1B-Instruct, which are fetched)
set -uo pipefail
cd "$(dirname "$0")/.."
model=${1:-models/demo}

[ "$(uname -s)-$(uname -m)" = Darwin-arm64 ] || { echo "this runs on an Apple Silicon Mac, not on $(uname -s) $(uname -m)" >&2; exit 2; }
for tool in cargo curl python3 sysctl system_profiler /usr/bin/time; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; missing=1; }
done
xcrun --find clang >/dev/null 2>&1 || { echo "missing: Apple's command line tools (xcode-select --install)" >&2; missing=1; }
[ -z "${missing:-}" ] || exit 2

report=mac-acceptance-$(date +%Y-%m-%d-%H%M).txt
failed=()
# Runs a command, its output in the report and on the screen; goes on after a failure.
part() {
    local name=$1
    shift
    printf '\n=== %s: %s\n' "$name" "$*" | tee -a "$report"
    local start=$SECONDS
    "$@" 2>&1 | tee -a "$report"
    local status=${PIPESTATUS[0]}
    printf -- '--- %s: %s after %s s\n' "$name" "$([ "$status" = 0 ] && echo passed || echo "FAILED ($status)")" $((SECONDS - start)) | tee -a "$report"
    [ "$status" = 0 ] || failed+=("$name")
}

{
    echo "Tallow $(git rev-parse HEAD 2>/dev/null || echo '(no git)') on $(date)"
    sysctl -n machdep.cpu.brand_string hw.memsize hw.model
    sw_vers
    system_profiler SPDisplaysDataType | grep -E 'Chipset|Cores|Metal'
} | tee "$report"

tallow=target/release/tallow
part "build" cargo build --release --locked --features metal
part "tests on the GPU" cargo test --locked -p metal --features metal
part "all tests" cargo test --locked --workspace --features metal
part "quality" "$tallow" eval models/eval --device metal --needles --json target/mac-eval.json
part "quality on the CPU" "$tallow" eval models/eval --device cpu --tokens 4096 --json target/mac-eval-cpu.json
part "speed" "$tallow" bench "$model" --device metal --contexts 512,2048,3500 --batches 1,4 --json target/mac-bench.json
part "speed on the CPU" "$tallow" bench "$model" --device cpu --contexts 512,2048 --batches 1

# The longest context that the presets' pools hold, really filled: the server takes a prompt that is all but a few tokens of it.
capacity() {
    local preset=$1 log port=8765 status
    log=$(mktemp)
    "$tallow" serve "$model" --device metal --kv-preset "$preset" --max-num-seqs 1 --port $port 2>"$log" &
    local server=$!
    for _ in $(seq 600); do
        curl -fs "http://127.0.0.1:$port/health" >/dev/null && break
        kill -0 $server 2>/dev/null || { cat "$log"; return 1; }
        sleep 0.5
    done
    grep -E 'KV cache|GPU memory|compiled' "$log"
    python3 - "$port" <<'PY'
import json, sys, time, urllib.request
base = f"http://127.0.0.1:{sys.argv[1]}"
def post(path, body):
    request = urllib.request.Request(base + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=7200))
limit = json.load(urllib.request.urlopen(base + "/v1/models"))["data"][0]["max_model_len"]
text = open("data/wikitext2-test-sample.txt").read()
tokens = post("/tokenize", {"prompt": text})["tokens"]
prompt = (tokens * (limit // len(tokens) + 1))[: limit - 16]
start = time.time()
answer = post("/v1/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0})
print(f"{limit} tokens of context, {len(prompt)} of prompt answered in {time.time() - start:.1f} s: {answer['usage']}")
PY
    status=$?
    grep -m1 -i 'resident\|footprint' <(footprint $server 2>/dev/null)
    kill -TERM $server
    wait $server
    rm -f "$log"
    return $status
}
for preset in bf16 balanced auto; do
    part "capacity, $preset" capacity "$preset"
done

printf '\n%s\n' "$([ ${#failed[@]} = 0 ] && echo 'everything passed' || echo "failed: ${failed[*]}")" | tee -a "$report"
echo "the report: $report"
[ ${#failed[@]} = 0 ]
