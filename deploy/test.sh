#!/usr/bin/env bash
# Runs every test on a fresh machine, as root: installs what is missing, then format, lints, dependencies, and all
# tests with and without DPDK, end to end in network namespaces too, and 100,000 executions of each fuzz target. The last
# line is `N passed, N failed, N skipped`; the exit status is 0 only if nothing failed and nothing was skipped.
#
# Not run: `cargo deny check advisories`, which needs the advisory database from the network.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
source deploy/packages.sh

if ((EUID != 0)); then
    echo "deploy/test.sh makes network namespaces and installs packages: run it as root" >&2
    exit 1
fi

WORK=$(mktemp -d)
HUGEPAGES=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
HUGEPAGES_BEFORE=
CHILD=
passed=0 failed=0 skipped=0 failures=()

cleanup() {
    trap - EXIT
    if [[ -n $CHILD ]]; then
        kill -- "-$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    # Namespaces and files of end-to-end tests that were interrupted: named after the test process, which is gone.
    local left pid
    for left in /run/netns/hxlab-* /tmp/hxlab-*; do
        pid=${left##*/hxlab-} pid=${pid%%-*}
        [[ -e $left && ! -e /proc/$pid ]] || continue
        case $left in
        /run/netns/*) ip netns del "${left##*/}" ;;
        *) rm -rf "$left" ;;
        esac
    done
    [[ -z $HUGEPAGES_BEFORE ]] || echo "$HUGEPAGES_BEFORE" >"$HUGEPAGES"
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Runs a command and shows its output, which is in $WORK/output afterwards. In the background and in a process group
# of its own, so that a signal to this script is acted on at once, and ends everything.
run() {
    local status=0 out tee
    exec {out}> >(exec tee "$WORK/output")
    tee=$!
    set -m
    "$@" >&"$out" 2>&1 {out}>&- &
    CHILD=$!
    set +m
    exec {out}>&-
    wait "$CHILD" || status=$?
    CHILD=
    wait "$tee" || true
    return $status
}

# One thing that passes or fails as a whole.
check() {
    local name=$1 start=$SECONDS
    shift
    echo "=== $name: $*"
    if run "$@"; then
        passed=$((passed + 1))
        echo "--- $name: passed ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1)) failures+=("$name")
        echo "--- $name: FAILED ($((SECONDS - start)) s)"
    fi
}

# A `cargo test`, whose tests are counted one by one; what does not compile counts as one failure.
suite() {
    local name=$1 start=$SECONDS status=0
    shift
    echo "=== $name: $*"
    run "$@" || status=$?
    local p f s
    read -r p f s < <(awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) p += $(i - 1)
                if ($i ~ /^failed/) f += $(i - 1)
                if ($i ~ /^(ignored|filtered)/) s += $(i - 1)
            }
        }
        END { print p + 0, f + 0, s + 0 }' "$WORK/output")
    # A failure that no test reported: a build error, a test program that died, or nothing that ran at all.
    ((f == 0 && (status != 0 || p == 0))) && f=1
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    ((f == 0)) || failures+=("$name: $(grep -oP '^test \K.*(?= \.\.\. FAILED)' "$WORK/output" | tr '\n' ' ')")
    echo "--- $name: $p passed, $f failed, $s skipped ($((SECONDS - start)) s)"
}

echo "=== what is missing is installed"
run install_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_DEMO[@]}" "${PACKAGES_TEST[@]}"
ensure_rust
ensure_rust_components
echo "Rust $RUST_FOUND, DPDK $(pkg-config --modversion libdpdk)"
if ! cargo deny --version >/dev/null 2>&1; then
    run cargo install --locked cargo-deny --version 0.18.3 || echo "cargo-deny could not be installed" >&2
fi

# 0.12.0, because later ones want a newer Rust than rust-version.
if ! cargo fuzz --version >/dev/null 2>&1; then
    run cargo install --locked cargo-fuzz --version 0.12.0 || echo "cargo-fuzz could not be installed" >&2
fi

# Huge pages for the tests that want them, before memory is in pieces. Those tests reserve what is missing, and fail without.
if [[ -w $HUGEPAGES ]] && (($(<"$HUGEPAGES") < 256)); then
    HUGEPAGES_BEFORE=$(<"$HUGEPAGES")
    echo 256 >"$HUGEPAGES" || true
    echo "huge pages of 2 MB: $(<"$HUGEPAGES") (were $HUGEPAGES_BEFORE, restored at the end)"
fi

export CARGO_TERM_COLOR=never
check format cargo fmt --all --check
check "format of the fuzzers" cargo fmt --manifest-path fuzz/Cargo.toml --check
check "lints" cargo clippy --locked --all-targets -- -D warnings
check "lints without DPDK" cargo clippy --locked --all-targets --no-default-features -- -D warnings
# cargo-deny looks at the crates of all platforms, of which a build fetches only this one's.
run cargo fetch --locked || echo "not all crates could be fetched" >&2
check dependencies cargo deny --offline check licenses bans sources
check "searches by RFC 2544" python3 -B -m unittest discover -s benches/rfc2544
check "model of several workers" python3 -B -m unittest discover -t benches -s benches/compare
check "pktgen scripts" lua5.3 tests/pktgen/check.lua
suite "tests without DPDK" cargo test --locked --no-default-features --no-fail-fast
suite "tests" cargo test --locked --no-fail-fast
# The tests in namespaces again, with two workers; what has a number of workers of its own (e2e_workers), measures one worker or takes
# a minute was run above.
two_workers=()
for test in agree apply control faults fragments frames limits log nmap sessions startup syn traffic; do
    two_workers+=(--test "e2e_$test")
done
suite "tests with two workers" env HAECHI_TEST_WORKERS=0-1 cargo test --locked --no-fail-fast "${two_workers[@]}"
while read -r target; do
    check "fuzz $target" fuzz/run.sh "$target"
done < <(fuzz/run.sh --list)

echo
echo "took $SECONDS s"
for failure in "${failures[@]}"; do
    echo "failed: $failure"
done
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0 && skipped == 0))
