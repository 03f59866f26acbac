#!/usr/bin/env bash
# The rules of `quality`, and datatrove's filters where scripts/parity.sh has set them up. Usage: run.sh [MEGABYTES]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
cargo build --quiet --release --locked
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 benches/quality/compare.py "$target/release/textmill" "$PWD/tests/parity/.venv/bin/python" "${1:-100}" "$folder"
