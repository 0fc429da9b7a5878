#!/usr/bin/env bash
# The Metal kernels on a machine without Metal, beside `cargo test`, which lints them and runs them in the emulator where there is
# clang 19: their format, the emulator under the rules of fast math, and nvcc. Installs clang 19 and nvcc if they are missing (as root on Debian). No argument, no input.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
shim=tools/msl-emu/shim
step() { printf '\n=== kernels: %s (%s s)\n' "$1" "$SECONDS"; }

step "tools"
if ! { command -v clang++-19 && command -v clang-format-19; } >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends clang-19 clang-format-19 >/dev/null
fi
nvcc=$target/nvcc/nvidia/cu13/bin/nvcc
if [ ! -x "$nvcc" ] && ! { command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1; }; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3-pip >/dev/null
fi
# Needed last: it is fetched while the rest runs.
fetch_nvcc() {
    [ -x "$nvcc" ] || python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --target "$target/nvcc" \
        nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cuda-cccl==13.0.*
}
fetch_nvcc &
fetching=$!
cargo build --locked -q -p mslgen
mslgen=$target/debug/mslgen
work=$target/kernels
mkdir -p "$work"

step "format"
clang-format-19 --dry-run --Werror kernels/*/*.metal kernels/*/*.h

step "emulator under fast math"
export MSL_REQUIRE_EMULATOR=1
# With --workspace, dependencies are built with the features that the rest of the gate builds them with.
MSL_CXXFLAGS=-ffast-math cargo test --locked -q --workspace --test kernels --test helpers --test layers --test slicing

step "nvcc"
wait "$fetching"
# Function constants: K tc4, V tc5, centred, blocks of 16, Half RoPE, a window, sink logits, not exact, 8 kv heads of 4 query
# heads.
constants=(-DMSL_FC_0=4u -DMSL_FC_1=3u -DMSL_FC_2=1 -DMSL_FC_4=4u -DMSL_FC_5=0 -DMSL_FC_6=1 -DMSL_FC_7=1 -DMSL_FC_8=0 -DMSL_FC_9=8u -DMSL_FC_10=4u)
for file in kernels/*/*.metal; do "$mslgen" cuda "$file" "$work/$(basename "$file" .metal).cu" -I "$shim/include" -I kernels -DHEAD_DIM=96; done
# Any that fails makes xargs fail.
for file in kernels/*/*.metal; do basename "$file" .metal; done | xargs -P "$(nproc)" -I{} \
    "$nvcc" -cubin -std=c++17 -O1 -arch sm_90 -diag-suppress 1097,20012,177,20044,2361,550,186 "${constants[@]}" -I "$shim" "$work/{}.cu" -o "$work/{}.cubin"
# A kernel that depends on no constant is compiled with none, beside the text of those that do.
for index in $(grep -oh 'function_constant([0-9]*)' kernels/*/* | tr -dc '0-9\n' | sort -un); do
    grep -q "^#define MSL_FC_$index " "$shim/metal_cuda_shim.cuh" || { echo "metal_cuda_shim.cuh gives function constant $index no value" >&2; exit 1; }
done
step "done"
