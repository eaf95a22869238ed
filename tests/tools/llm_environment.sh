#!/usr/bin/env bash
# Makes DIR/llm: llama.cpp with its OpenAI-compatible server, what writes a tiny model for it, and the `openai` client.
# usage: tests/tools/llm_environment.sh DIR
#
# Afterwards `TANDEM_CLIENTS=DIR` makes the tests run that generate text with a real server and a real client
# (tests/conformance/test_generation_clients.py). They need no GPU and fetch no weights: the model is made in the test.
# What is there already, of the same requirements, is left as it is. Where it cannot be made (there are wheels for
# Linux and macOS), the last line says which tests skip, and the status is 3. PYTHON makes it; without it
# .venv/bin/python does.
set -euo pipefail
dir=${1:?usage: llm_environment.sh DIR}
python=$(command -v "${PYTHON:=.venv/bin/python}") || { echo "no python: $PYTHON"; exit 2; }
place=$dir/llm
wanted='xllamacpp==2026.10.11549 gguf==0.19.0 openai==3.54.0'
[[ $(cat "$place/requirements" 2>/dev/null) != "$wanted" ]] || exit 0

# Everything is a wheel: nothing is built.
make_environment() {
    rm -rf "$place"
    "$python" -m venv --without-pip "$place" || return 1
    # shellcheck disable=SC2086 # several requirements are several words
    "$python" -m pip --python "$place/bin/python" install --quiet --disable-pip-version-check \
        --only-binary=:all: --no-compile $wanted || return 1
    echo "$wanted" > "$place/requirements"
}

make_environment || { rm -rf "$place"; echo "the tests of text generation with llama.cpp will be skipped: llm"; exit 3; }
