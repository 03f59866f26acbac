#!/usr/bin/env bash
# The prose rules of `quality` beside datatrove's filters, each rule apart, on real documents: agreement by rule,
# and the documents on which they differ. Usage: parity.sh [--big [FOLDER]]
# 400 documents of this machine's Python by default (a minute); --big: 20,000, which are downloaded to FOLDER
# (target/parity) and take datatrove a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

venv=$(realpath "$(scripts/python-env.sh tests/parity)")
cargo build --quiet --release --locked
textmill=$(realpath "$target/release/textmill")

trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
size=small
[ "${1:-}" = --big ] && size=big
folder=${2:-$target/parity}
mkdir -p "$folder/$size"
folder=$(realpath "$folder")
"$venv/bin/python" tests/parity/corpus.py "$size" "$folder/$size/documents.jsonl" "$folder"

python=$venv/bin/python here=$(pwd)
cd "$folder/$size"
if ! sha256sum --status --check documents.sum 2> /dev/null; then
  # Two halves, on two cores.
  rm -f verdicts.* documents.sum
  split --number=l/2 --numeric-suffixes=1 --suffix-length=1 documents.jsonl part.
  "$python" "$here/tests/parity/verdicts.py" part.1 verdicts.1 &
  "$python" "$here/tests/parity/verdicts.py" part.2 verdicts.2
  wait %1
  cat verdicts.1 verdicts.2 > verdicts.jsonl
  sha256sum documents.jsonl > documents.sum
fi

pipeline() {
  printf 'textmill: 1\nname: %s\nsource: { files: { path: documents.jsonl } }\nsteps:\n  - quality: %s\nsave: { parquet: %s }\n' "$1" "$2" "$1" > "$1.yaml"
  rm -rf "$1"
  "$textmill" run "$1.yaml" > /dev/null
}
rm -rf .textmill
pipeline numbers '{ field: text, rules: [], score_into: numbers }'
pipeline lines '{ field: text, rules: [], drop_lines: true }'
"$python" "$here/tests/parity/compare.py" "$textmill" documents.jsonl verdicts.jsonl numbers lines
