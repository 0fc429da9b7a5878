#!/usr/bin/env bash
# The packages that programs ask servers with, unmodified, drive the release binary with a real model that takes tools:
#
#     MODEL=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf scripts/check-clients.sh [NAME..]
#
# NAME is one of the list below; without one all are run, and the failures are told at the end. TALLOW=PATH takes
# another binary than the one that is built. What came out: docs/compatibility.md.
set -euo pipefail
cd "$(dirname "$0")/.."
with_model=(openai openai-node anthropic litellm langchain agents ai-sdk)
with_demo=(lm-eval schemathesis smg)
if [ $# -eq 0 ]; then set -- "${with_model[@]}" "${with_demo[@]}"; fi
for name in "$@"; do
    if [[ " ${with_demo[*]} " == *" $name "* ]]; then continue; fi
    [[ " ${with_model[*]} " == *" $name "* ]] || { echo "$name: not one of ${with_model[*]} ${with_demo[*]}" >&2; exit 2; }
    [ -e "${MODEL:-}" ] && continue
    echo "MODEL must name the file or folder of a model whose chat template takes tools, such as that of" >&2
    echo "\`tallow pull Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:Q4_K_M\`; it is \"${MODEL:-}\", which is not there" >&2
    exit 2
done
programs=$PWD/crates/server/tests/clients
if [ -z "${TALLOW:-}" ]; then
    cargo build --release --locked
    TALLOW=target/release/tallow
fi
source scripts/lib/server.sh

venv=target/clients
node=target/clients-node
# Installs packages in the versions of requirements.txt, which it constrains.
python_packages() {
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$programs/requirements.txt" "$@"
}
# Puts the programs for Node beside the packages of package.json: modules are looked for in the folders above a program.
node_packages() {
    mkdir -p "$node"
    cp "$programs"/*.mjs "$programs/package.json" "$node"
    npm install --prefix "$node" --silent --no-audit --no-fund
}
serve_model() {
    start_server "$TALLOW" serve "$MODEL" --port 0 --max-num-seqs 8 --max-model-len 4096 --kv-cache-memory 256MiB
}
serve_demo() {
    start_server "$TALLOW" serve --port 0 --max-num-seqs 8 --max-tokens-default 16 --kv-cache-memory 128MiB
}
python_client() {
    "$venv/bin/python" "$programs/$1" --url "$url"
}

# These are chained by &&, since errors do not end functions that stand in a condition.
openai() {
    python_packages openai && serve_model && python_client with_openai.py
}
openai_node() {
    node_packages && serve_model && node "$node/with_openai.mjs" --url "$url"
}
anthropic() {
    python_packages anthropic && serve_model && python_client ../anthropic_client.py && python_client with_anthropic.py
}
litellm() {
    python_packages litellm openai && serve_model && python_client with_litellm.py
}
langchain() {
    python_packages langchain-openai && serve_model && python_client with_langchain.py
}
agents() {
    python_packages openai-agents && serve_model && python_client with_agents.py
}
ai_sdk() {
    node_packages && serve_model && node "$node/with_ai_sdk.mjs" --url "$url"
}
# Four questions whose choices are weighed by their log-probabilities, and that are answered. The hub is not asked.
lm_eval() {
    local evaluate=(env HF_HUB_OFFLINE=1 "$venv/bin/lm-eval" run --include_path "$programs/lm_eval" --limit 4)
    local arguments="model=demo,num_concurrent=2,base_url"
    python_packages 'lm-eval[api]' && serve_demo &&
        "${evaluate[@]}" --model local-completions --tasks tallow_choice,tallow_text \
            --model_args "$arguments=$url/v1/completions" &&
        "${evaluate[@]}" --model local-chat-completions --tasks tallow_text --apply_chat_template \
            --model_args "$arguments=$url/v1/chat/completions"
}
# Requests that /openapi.json allows or forbids, and whether answers are as it says. That values are within limits which
# depend on the model, such as token ids within its vocabulary, is not said by a schema: hence no acceptance of all.
schemathesis() {
    python_packages schemathesis && serve_demo &&
        (cd target && clients/bin/schemathesis run "$url/openapi.json" --max-examples 10 --seed 1 --no-shrink \
            --exclude-checks positive_data_acceptance)
}
# Two servers behind a router, of which the first is stopped.
smg() {
    python_packages smg && serve_demo && local first=$url pid=$server && serve_demo &&
        "$venv/bin/python" "$programs/with_smg.py" --smg "$venv/bin/smg" --servers "$first" "$url" --pid "$pid"
}

failed=()
for name in "$@"; do
    printf '\n=== %s\n' "$name"
    "${name//-/_}" || failed+=("$name")
    stop_server || failed+=("$name's server")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
