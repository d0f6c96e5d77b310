#!/usr/bin/env bash
# Runs every test. (Grows with the project.)
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --check
cargo test --no-default-features
