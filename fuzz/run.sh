#!/usr/bin/env bash
# Fuzzes one target, or each in turn, and says how many executions it did.
#
#   fuzz/run.sh [--runs N] [--seconds N] [TARGET...]       (100000 runs, 300 seconds at most, all targets)
#   fuzz/run.sh --list                                     (the targets)
#
# The last line of a target is `fuzz TARGET: N executions`; the exit status is 0 only if each did all its runs and found
# nothing. What it finds is in target/fuzz/artifacts: make it a test. FUZZ_SEED=N repeats a run (libFuzzer prints its seed).
#
# The corpus in fuzz/corpus comes with the source; what runs on this machine add to it is in target/fuzz/corpus. To take the
# best of both into the source: `fuzz/run.sh --merge [TARGET...]`.
#
# No sanitizer, because that takes a nightly Rust and what is fuzzed has no `unsafe` but intrinsics. With one:
# `cargo +nightly fuzz run TARGET`.
set -euo pipefail
cd "$(dirname "$0")/.."

list_targets() {
    sed -n '/^\[\[bin\]\]/{n;s/^name = "\(.*\)"$/\1/p}' fuzz/Cargo.toml
}

runs=100000 seconds=300 merge=0 targets=()
while (($#)); do
    case $1 in
    --runs) runs=$2 && shift ;;
    --seconds) seconds=$2 && shift ;;
    --merge) merge=1 ;;
    --list) list_targets && exit ;;
    -*) sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
    *) targets+=("$1") ;;
    esac
    shift
done
((${#targets[@]})) || mapfile -t targets < <(list_targets)

WORK=$(pwd)/target/fuzz
# cargo-fuzz's flags replace those of .cargo/config.toml: what is fuzzed should be what is shipped, its vectors too.
RUSTFLAGS=$(sed -n 's/^rustflags = \[\(.*\)\]$/\1/p' .cargo/config.toml | tr -d '",')
export RUSTFLAGS
FUZZ=(cargo fuzz)
OPTIONS=(--sanitizer none --target-dir "$WORK/build")

# libFuzzer writes crashes into the current directory unless told otherwise.
fuzz() {
    local target=$1 log=$WORK/$1.log executed
    local own=$WORK/corpus/$target given=fuzz/corpus/$target
    mkdir -p "$own" "$given" "$WORK/artifacts/$target"
    # The seeds as well as what was learnt here; only the first directory is written to.
    "${FUZZ[@]}" run "${OPTIONS[@]}" "$target" "$own" "$given" -- -runs="$runs" -max_total_time="$seconds" \
        -artifact_prefix="$WORK/artifacts/$target/" -print_final_stats=1 ${FUZZ_SEED:+-seed="$FUZZ_SEED"} >"$log" 2>&1 || {
        tail -n 40 "$log"
        echo "fuzz $target: FAILED"
        return 1
    }
    grep -m 1 'INFO: Seed:' "$log"
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz $target: ${executed:-0} executions, $(sed -n 's/^Done.* in \([0-9]*\) second.*/\1/p' "$log") s"
    ((${executed:-0} >= runs)) || { echo "fuzz $target: fewer than $runs in $seconds s" && return 1; }
}

# The smallest inputs that reach everything that both corpora reach.
merge() {
    local target=$1 best
    best=$(mktemp -d)
    "${FUZZ[@]}" run "${OPTIONS[@]}" "$target" "$best" "$WORK/corpus/$target" "fuzz/corpus/$target" -- -merge=1
    rm -rf "fuzz/corpus/$target"
    mv "$best" "fuzz/corpus/$target"
    chmod 755 "fuzz/corpus/$target"
}

status=0
for target in "${targets[@]}"; do
    if ((merge)); then merge "$target"; else fuzz "$target" || status=1; fi
done
exit "$status"
