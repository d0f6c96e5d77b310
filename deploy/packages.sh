#!/usr/bin/env bash
# What haechi needs from Debian or Ubuntu, in one place, and how it gets there. Sourced by quickstart.sh and test.sh
# (and tests/distro.sh); run by itself it installs everything and says nothing else.
#
# Everything here asks first and installs only what is missing, so that a prepared machine needs no network.

# To build: the C compiler and libclang are for DPDK's headers (pkg-config, bindgen and a small shim).
PACKAGES_BUILD=(gcc libc6-dev pkg-config clang libclang-dev libdpdk-dev ca-certificates curl)
# To see it work: namespaces, clients and servers.
PACKAGES_DEMO=(iproute2 ethtool iputils-ping iperf3 curl python3 procps util-linux)
# To test it as well: the C++ compiler is for libFuzzer, Lua for pktgen's scripts, systemd for what its service file says.
PACKAGES_TEST=(tcpdump strace nmap g++ lua5.3 systemd)

# Prints those of the packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# Installs what is missing; 1 and a line that names it if that fails.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]} == 0)) && return 0
    if ! command -v apt-get >/dev/null; then
        echo "missing packages, and no apt-get to install them: ${missing[*]}" >&2
        return 1
    fi
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }; then
        echo "missing packages that could not be installed: ${missing[*]}" >&2
        return 1
    fi
}

# The version that Cargo.toml asks for.
rust_version() {
    sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml
}

# Is version $1 at least version $2?
version_at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Puts a cargo of at least rust-version first in PATH: one that is there (also the invoking user's, under sudo), the
# distribution's package where that is new enough, or rustup's. 1 and a line that says what is missing otherwise.
ensure_rust() {
    local wanted directory user_home
    wanted=$(rust_version)
    use_rust_of "$wanted" "" && return 0
    user_home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    for directory in "$HOME/.cargo/bin" "$user_home/.cargo/bin" /usr/bin /usr/local/bin; do
        use_rust_of "$wanted" "$directory" && return 0
    done
    local candidate
    candidate=$(apt-cache policy cargo 2>/dev/null | sed -n 's/^  Candidate: *//p')
    if [[ $candidate == [0-9]* ]] && version_at_least "${candidate%%[+-]*}" "$wanted"; then
        install_packages cargo rustc && use_rust_of "$wanted" /usr/bin && return 0
    fi
    echo "no cargo of at least $wanted: installing Rust through rustup"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path || true
    use_rust_of "$wanted" "${CARGO_HOME:-$HOME/.cargo}/bin" && return 0
    echo "missing: Rust $wanted or newer, and rustup could not be reached to install it;" \
        "put a cargo of that version in PATH and start again" >&2
    return 1
}

# Takes the cargo of a directory (empty: of PATH as it is) if it works and is new enough.
use_rust_of() {
    local wanted=$1 directory=$2 cargo version rustup_home=${RUSTUP_HOME:-}
    cargo=${directory:+$directory/}cargo
    command -v "$cargo" >/dev/null || return 1
    # A rustup proxy finds its toolchains by its owner's home.
    if [[ -z $rustup_home && -n $directory && -d $directory/../../.rustup ]]; then
        rustup_home=$(realpath "$directory/../../.rustup")
    fi
    version=$(env ${rustup_home:+RUSTUP_HOME="$rustup_home"} "$cargo" --version 2>/dev/null) || return 1
    version=$(sed -n 's/^cargo \([0-9.]*\).*/\1/p' <<<"$version")
    [[ -n $version ]] && version_at_least "$version" "$wanted" || return 1
    [[ -z $directory ]] || export PATH=$directory:$PATH
    [[ -z $rustup_home ]] || export RUSTUP_HOME=$rustup_home
    RUST_FOUND="$version ($(command -v cargo))"
}

# rustfmt and clippy of the cargo in use.
ensure_rust_components() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
    if [[ $(command -v cargo) == /usr/bin/cargo ]]; then
        install_packages rustfmt rust-clippy && return 0
    elif command -v rustup >/dev/null && rustup component add rustfmt clippy; then
        return 0
    fi
    echo "missing: rustfmt and clippy for $(command -v cargo)" >&2
    return 1
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    cd "$(dirname "$0")/.."
    install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_DEMO[@]}" "${PACKAGES_TEST[@]}"
    ensure_rust
    ensure_rust_components
fi
