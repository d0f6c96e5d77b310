#!/usr/bin/env bash
# The storm of applies in full length: ten a second for 30 s (or as many seconds as the argument says) under 100,000
# sessions and an iperf3, on a release build. As root. deploy/test.sh runs the same test for a few seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
HAECHI_STORM_SECONDS=${1:-30} exec cargo test --locked --release --test e2e_apply -- --nocapture a_storm
