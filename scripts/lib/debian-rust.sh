# Debian's Rust with the standard library's source, for targets of which rustup has no compiled form here. To be sourced.

# Installs those of the named packages that are missing.
debian_packages() {
    local missing=()
    for package in rustc-web cargo-web rust-web-src "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
    fi
}

# rust-toolchain.toml is rustup's; this compiler comes without it.
export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1 PATH=/usr/bin:$PATH
DEBIAN_CARGO=/usr/bin/cargo
