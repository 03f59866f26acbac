#!/usr/bin/env bash
# Everything that CI runs: format, lints, all tests, the pipelines' own tests, the dataset in other tools,
# the README's first command, and the wire formats against other people's servers. Installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*" >&2; }

step "format"
cargo fmt --check

step "lints"
cargo clippy --quiet --locked --all-targets -- -D warnings

step "tests"
command -v cargo-nextest > /dev/null || cargo install --quiet --locked cargo-nextest
cargo nextest run --locked --no-fail-fast
cargo test --quiet --locked --doc

step "a real sentence model"
scripts/minilm.sh > /dev/null
cargo nextest run --locked --run-ignored only --no-fail-fast -E 'test(minilm)'

step "the pipelines' own tests"
textmill=${CARGO_TARGET_DIR:-target}/debug/textmill
for pipeline in pipelines/*.yaml; do
  "$textmill" check "$pipeline"
  "$textmill" test "$pipeline"
done

step "a dataset in pyarrow, polars, duckdb and datasets"
scripts/test-loaders.sh "$textmill"

step "the README's first command"
scripts/quickstart.sh

step "servers that nobody here wrote"
scripts/test-servers.sh "$textmill"
