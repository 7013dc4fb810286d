#!/usr/bin/env bash
# From a checkout to a streamed answer: installs what is missing, builds, fetches a model, starts a
# router, a prefill worker and a decode worker, and asks a first question. Ctrl-C drains and stops.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/quickstart.sh [--once "PROMPT" | --ask "PROMPT"] [--model PATH] [--port PORT] [-- ARGS...]
  --once "PROMPT"  answer this one prompt, stop everything and exit
  --ask "PROMPT"   the first question, before serving goes on
  --model PATH     a GGUF file or a Hugging Face directory (default: SmolLM2-135M-Instruct)
  --port PORT      where the router listens (default: 8000)
  -- ARGS...       handed to `baton up` as they are
USAGE
}

ask=(--ask "In two sentences: what does a relay team do with a baton?")
model=
port=()
extra=()
while [ $# -gt 0 ]; do
  case "$1" in
    --once | --ask | --model | --port)
      if [ $# -lt 2 ]; then
        echo "quickstart: $1 needs a value" >&2
        exit 2
      fi
      ;;&
    --once | --ask) ask=("$1" "$2") && shift 2 ;;
    --model)
      model=$(realpath -e -- "$2") || exit 2
      shift 2
      ;;
    --port) port=(--port "$2") && shift 2 ;;
    --) shift && extra=("$@") && break ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

cd "$(dirname "$0")/.."
# Each step finds out quickly that it has nothing to do.
./scripts/install_deps.sh
./scripts/build.sh release baton
[ -n "$model" ] || model=$(./scripts/get_model.sh | tail -n 1)

exec build/release/bin/baton up --model "$model" "${port[@]}" "${ask[@]}" "${extra[@]}"
