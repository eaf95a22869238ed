#!/usr/bin/env bash
# Makes DIR/tfserving: the stubs of tensorflow-serving-api, unmodified, without TensorFlow.
# usage: tests/tools/tfserving_environment.sh DIR
#
# Afterwards `TANDEM_CLIENTS=DIR` makes the tests run that ask Tandem with these stubs. They import message modules
# of TensorFlow, a gigabyte and a half when it is installed; here only these modules are taken out of its wheel,
# of which 270 MB are fetched. PYTHON is python3 if not set.
set -euo pipefail
dir=${1:?usage: tfserving_environment.sh DIR}
python=$(command -v "${PYTHON:-python3}") || { echo "no python: ${PYTHON:-python3}"; exit 2; }
version=2.21.0
place=$dir/tfserving
[[ $(cat "$place/version" 2>/dev/null) != "$version" ]] || exit 0

rm -rf "$place"
"$python" -m venv --without-pip "$place"
pip=("$python" -m pip --disable-pip-version-check --quiet --python "$place/bin/python")
"${pip[@]}" install --only-binary=:all: 'grpcio>=1.76,<2' 'numpy>=2,<3' 'protobuf>=6.31.1,<8'
"${pip[@]}" install --only-binary=:all: --no-deps "tensorflow-serving-api==$version"
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"${pip[@]}" download --only-binary=:all: --no-deps --dest "$wheels" "tensorflow-cpu==$version"
"$place/bin/python" - "$wheels" <<'END'
import sys, sysconfig, zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    messages = [name for name in archive.namelist() if name.startswith("tensorflow/") and name.endswith("_pb2.py")]
    archive.extractall(sysconfig.get_path("purelib"), messages)
END
echo "$version" > "$place/version"
