#!/usr/bin/env bash
# dedup_near beside rensa and text-dedup on the same documents. Usage: run.sh [DOCUMENTS]
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
"$venv/bin/python" benches/dedup/compare.py "$target/release/textmill" "${1:-200000}" "$(mktemp -d)"
