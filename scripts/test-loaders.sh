#!/usr/bin/env bash
# Makes a dataset with the fake teacher and loads it, unchanged, in pyarrow, polars, duckdb and datasets.
# Usage: test-loaders.sh TEXTMILL-BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
textmill=$(realpath "$1")

venv=$(scripts/python-env.sh tests/loaders)

folder=$(mktemp -d)
"$textmill" teacher --reply-bytes 200 > "$folder/url" &
teacher=$!
trap 'kill $teacher; rm -rf "$folder"' EXIT
until [ -s "$folder/url" ]; do sleep 0.05; done

cp tests/loaders/nested.yaml "$folder/"
(cd "$folder" && "$textmill" run nested.yaml --set "teachers.writer.openai.url=$(cat url)")
"$venv/bin/python" tests/loaders/load.py "$folder/out"
