#!/bin/sh
# 2,000 connections of real kernels through a SYN flood that haechi polls itself, and the rates: the flood's, and what the same
# port forwards of known sessions. As root; a release build, because a debug build's rates say little.
set -eu
cd "$(dirname "$0")/.."
exec cargo test --release --test e2e_syn -- --ignored --nocapture two_thousand_connections_and_rates
