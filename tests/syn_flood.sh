#!/bin/sh
# 2,000 connections of real kernels through a SYN flood that haechi polls itself, and the rates: the flood's, and what the same
# port forwards of known sessions. As root; a release build, because a debug build's rates say little.
set -eu
cd "$(dirname "$0")/.."
export HAECHI_FLOOD_CONNECTIONS=2000 HAECHI_FLOOD_ROUNDS=5
exec cargo test --release --test e2e_syn -- --nocapture --test-threads 1 under_a_flood
