#!/usr/bin/env bash
# Makes the environments of the clients that people already have: one each, because their pins fight ours.
# usage: tests/tools/clients_environment.sh DIR [NAME …]
#
# Afterwards `TANDEM_CLIENTS=DIR` makes the tests run that ask Tandem with these clients, unmodified, from PyPI;
# scripts in tests/clients run inside of them. What is there already, of the same requirements, is left as it is.
# Where one cannot be made, the last line says which tests skip, and the status is 3. PYTHON makes them; without it
# .venv/bin/python does.
set -euo pipefail
dir=${1:?usage: clients_environment.sh DIR [NAME …]}
python=$(command -v "${PYTHON:=.venv/bin/python}") || { echo "no python: $PYTHON"; exit 2; }

# Models travel between Tandem and MLflow, and only between the same versions.
scikit_learn=$(grep -o '^scikit-learn==[0-9.]*' "$(dirname "$0")/../../constraints.txt")

declare -A requirements=(
    [triton]='tritonclient[http,grpc]==2.73.0 grpcio-health-checking==1.81.1'
    [kserve]='kserve==0.21.0'
    [mlserver]='mlserver==1.7.1 pandas<3'
    [schemathesis]='schemathesis==4.32.5'
    [mlflow]="mlflow-skinny==3.17.2 numpy pandas skops $scikit_learn"
)
names=("${@:2}")
[[ ${#names[@]} -gt 0 ]] || mapfile -t names < <(printf '%s\n' "${!requirements[@]}" | sort)

# Everything is a wheel: nothing is built, and nothing of a client runs before its test.
make_environment() {
    local place=$dir/$1 wanted=$2
    [[ $(cat "$place/requirements" 2>/dev/null) != "$wanted" ]] || return 0
    rm -rf "$place"
    "$python" -m venv --without-pip "$place" || return 1
    # shellcheck disable=SC2086 # several requirements are several words
    "$python" -m pip --python "$place/bin/python" install --quiet --disable-pip-version-check \
        --only-binary=:all: --no-compile $wanted || return 1
    echo "$wanted" > "$place/requirements"
}

missing=()
for name in "${names[@]}"; do
    [[ -n ${requirements[$name]:-} ]] || { echo "no client is called $name: ${!requirements[*]}"; exit 2; }
    make_environment "$name" "${requirements[$name]}" || { rm -rf "${dir:?}/$name"; missing+=("$name"); }
done
[[ ${#missing[@]} -eq 0 ]] || { echo "the tests of these clients will be skipped: ${missing[*]}"; exit 3; }
