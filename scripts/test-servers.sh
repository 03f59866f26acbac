#!/usr/bin/env bash
# Every wire format against servers that nobody here wrote: llmock, a simulator that breaks things and then
# says how the client took it, and the real local model behind llama.cpp's server.
# Usage: test-servers.sh TEXTMILL-BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
textmill=$(realpath "$1")

llmock=$(realpath "$(scripts/python-env.sh tests/servers)/bin/llmock")

folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export MOCK_KEY=sk-test

answers() { for _ in $(seq 100); do curl -s -o /dev/null "$1" && return; sleep 0.1; done; return 1; }

# mock FORMAT URL-PATH TEACHER-SETTINGS SERVER-FLAGS...
mock() {
  local format=$1 path=$2 settings=$3 pipeline=mock.yaml
  [ "$format" = embeddings ] && pipeline=vectors.yaml
  [ "$settings" = batches ] && pipeline=batches.yaml settings=
  shift 3
  "$llmock" serve --port "$port" --log-level warning "$@" > "$folder/server.log" 2>&1 &
  server=$!
  answers "http://127.0.0.1:$port/health"
  rm -rf "$folder/run" && mkdir "$folder/run"
  cp "tests/servers/$pipeline" "$folder/run/p.yaml"
  # The format is a key, which --set cannot rename.
  sed -i "s#openai: {.*#$format: { url: \"http://127.0.0.1:$port$path\", model: some-model, key_env: MOCK_KEY$settings }#" "$folder/run/p.yaml"
  (cd "$folder/run" && "$textmill" run p.yaml --json 2> stderr > accounts) || { cat "$folder/run/stderr"; exit 1; }
  python3 tests/servers/mock.py "$folder/run/accounts"
  "$llmock" report --url "http://127.0.0.1:$port" > "$folder/verdict" || { cat "$folder/verdict"; exit 1; }
  echo "llmock: $format $pipeline $settings $*: $(head -n 1 "$folder/verdict")"
  kill $server && wait $server 2>/dev/null || true
}

all() {
  # Embeddings do not stream.
  [[ $1 == *stream* ]] || mock embeddings /v1 "$@"
  mock openai /v1 "$@"
  mock responses /v1 "$@"
  mock anthropic /anthropic/v1 "$@"
  mock gemini /gemini/v1beta "$@"
}

all ""
all "" --error-rate 429=0.2 --error-rate 500=0.1
all ", stream: true, idle_timeout: 5s" --stream-fault truncate=0.1 --stream-fault disconnect=0.05
all "" --rpm 600 --tpm 60000

for faults in "" "--error-rate 429=0.1 --error-rate 500=0.1"; do
  # Word by word: they are flags.
  mock openai /v1 batches $faults
  mock anthropic /anthropic/v1 batches $faults
done

# The real model: three of the four APIs, with and without a schema that the server holds it to.
model=pipelines/teachers/.venv
[ -e "$model/ready" ] || { echo "scripts/quickstart.sh sets up the local model first" >&2; exit 1; }
"$model/bin/python" pipelines/teachers/smollm2.py "$port" > "$folder/model.log" 2>&1 &
server=$!
answers "http://127.0.0.1:$port/health"
for format in openai responses anthropic; do
  for structured in json_schema prompt; do
    # Anthropic's way is a tool.
    [ "$format/$structured" = anthropic/json_schema ] && structured=tool
    rm -rf "$folder/run" && mkdir "$folder/run"
    sed "s#openai: {.*#$format: { url: \"http://127.0.0.1:$port/v1\", model: smollm2-135m, structured: $structured }#" \
      tests/servers/model.yaml > "$folder/run/p.yaml"
    (cd "$folder/run" && "$textmill" run p.yaml --json 2> stderr > accounts) || { cat "$folder/run/stderr"; exit 1; }
    python3 tests/servers/model.py "$folder/run/accounts" "$format" "$structured"
  done
done
