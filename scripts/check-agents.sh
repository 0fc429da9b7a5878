#!/usr/bin/env bash
# Claude Code, Codex and opencode, started by `tallow launch`, complete a loop with a tool against the server, each in a network namespace that
# has the loopback alone, so that it reaches nothing else. A script answers in place of a model (crates/server/examples/scripted.rs): it calls the agent's shell once and
# repeats what that has said. With a MODEL, tallow serves that instead, and what it chooses is told, not judged.
# usage: scripts/check-agents.sh [MODEL]        needs: npm, unshare and ip as root
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
model=${1:-}
agents=$root/target/agents
mkdir -p "$agents"
(cd "$agents" && npm install --silent --no-audit --no-fund @anthropic-ai/claude-code@2.1.197 @openai/codex@0.171.0 opencode-ai@1.18.33 &&
    node node_modules/opencode-ai/postinstall.mjs >/dev/null)
cargo build --release --locked
if [ -n "$model" ]; then
    serve=("$root/target/release/tallow" serve "$model" --port 8390 --served-model-name agent)
else
    # With --workspace, dependencies keep the features that the program was built with.
    cargo build --release --locked --workspace --example scripted
    serve=("$root/target/release/examples/scripted" "$root/models/demo" 8390 "echo made by the agent > made.txt; echo done 4711")
fi

# run NAME COMMAND..: the agent in a folder of its own beside a server of its own.
run() {
    local name=$1
    shift
    local home
    home=$(mktemp -d)
    mkdir -p "$home/work"
    set +e
    unshare -n bash -c '
        ip link set lo up
        home=$1; log=$home/server.log; shift
        count=$1; shift
        "${@:1:count}" >"$log" 2>&1 &
        server=$!
        for _ in $(seq 300); do curl -fs http://127.0.0.1:8390/health >/dev/null && break; sleep 0.2; done
        cd "$home/work"
        env -i PATH="$PATH" HOME="$home" LANG=C.UTF-8 TERM=dumb IS_SANDBOX=1 DISABLE_TELEMETRY=1 DISABLE_AUTOUPDATER=1 \
            OPENCODE_DISABLE_AUTOUPDATE=1 timeout "${LIMIT:-300}" "${@:count + 1}" </dev/null
        kill $server' run "$home" "${#serve[@]}" "${serve[@]}" "$@" >"$home/agent.log" 2>&1
    set -e
    if [ -n "$model" ]; then
        echo "$name: $(ls "$home/work" | tr '\n' ' ')"
        tail -n 5 "$home/agent.log"
    elif grep -q "made by the agent" "$home/work/made.txt" 2>/dev/null && grep -q "done 4711" "$home/agent.log"; then
        echo "$name: made the file and told what its shell said"
    else
        echo "$name failed:" >&2
        tail -n 30 "$home/agent.log" "$home/server.log" >&2
        failed=1
    fi
    [ -n "${KEEP:-}" ] || rm -rf "$home"
}

failed=
ask="Make a file made.txt with your shell and tell me what the shell said."
PATH=$agents/node_modules/.bin:$PATH
launch() { run "$1" "$root/target/release/tallow" launch "$2" --url http://127.0.0.1:8390 -- "${@:3}"; }
launch "Claude Code" claude -p "$ask" --dangerously-skip-permissions
launch "Codex" codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox "$ask"
launch "opencode" opencode run "$ask"
[ -z "$failed" ]
