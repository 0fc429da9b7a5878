# Starts servers and stops them again. To be sourced; the servers that still run when the script ends are stopped then.

log=$(mktemp)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -f "$log"' EXIT

# Starts a command that serves as process $server, with its log in $log, waits until it answers, for $START_SECONDS or 30 seconds, and sets
# url to where.
start_server() {
    : >"$log"
    "$@" 2>>"$log" &
    server=$!
    servers+=("$server")
    for _ in $(seq $((10 * ${START_SECONDS:-30}))); do
        # The log says it.
        url=$(grep -oE 'http://[0-9.:]+' "$log" | head -n 1 || true)
        if [ -n "$url" ] && curl -fs "$url/health" >/dev/null; then return; fi
        kill -0 "$server" || break
        sleep 0.1
    done
    echo "the server does not answer; its log:" >&2
    cat "$log" >&2
    exit 1
}

# Stops process $server, which must be there and end with 0.
stop_server() {
    local status=0
    kill -TERM "$server" 2>/dev/null || echo "the server has ended by itself" >&2
    wait "$server" || status=$?
    if [ $status -ne 0 ]; then
        echo "the server ended with $status; its log:" >&2
        cat "$log" >&2
    fi
    return $status
}
