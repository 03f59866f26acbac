#!/usr/bin/env bash
# Makes FOLDER/.venv with what FOLDER/requirements.txt lists, once, and prints its path.
# Usage: python-env.sh FOLDER [PIP-INSTALL-FLAGS...]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
if ! [ -e "$folder/.venv/ready" ]; then
  python3 -m venv "$folder/.venv"
  "$folder/.venv/bin/pip" install --quiet --disable-pip-version-check "$@" -r "$folder/requirements.txt" >&2
  touch "$folder/.venv/ready"
fi
echo "$folder/.venv"
