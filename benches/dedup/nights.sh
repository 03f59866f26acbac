#!/usr/bin/env bash
# What comparing with ever more earlier releases costs a row. Usage: nights.sh [NIGHTS] [ROWS]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}

venv=$target/dedup-venv
if ! [ -e "$venv/ready" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/dedup/requirements.txt
  touch "$venv/ready"
fi
cargo build --quiet --release --locked
"$venv/bin/python" benches/dedup/nights.py "$target/release/textmill" "${1:-31}" "${2:-10000}"
