#!/usr/bin/env bash
# What dedup_near and dedup_exact find of 2 x 11,000 labelled texts. Usage: evals.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}

venv=$target/dedup-venv
if ! [ -e "$venv/ready" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/dedup/requirements.txt
  touch "$venv/ready"
fi
data=$target/dedup-evals
if ! [ -e "$data/ready" ]; then
  mkdir -p "$data"
  "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps evals==3.0.1.post1 -d "$data"
  for set in owt_5 wikipedia_5; do
    unzip -p "$data"/evals-*.whl "evals/registry/data/schelling_point/$set.jsonl" > "$data/$set.jsonl"
  done
  rm "$data"/evals-*.whl
  touch "$data/ready"
fi
cargo build --quiet --release --locked
"$venv/bin/python" benches/dedup/evals.py "$target/release/textmill" "$data"
