#!/usr/bin/env bash
# Makes an environment in which nvForest's CPU mode runs: no GPU, no driver, no CUDA toolkit.
# usage: tests/tools/nvforest_environment.sh DIR [PYTHON=.venv/bin/python]
#
# Afterwards `TANDEM_NVFOREST_PYTHON=DIR/bin/python` makes the tests of nvForest run. The environment sees
# the packages of PYTHON and adds only nvForest and what it links, so it needs 170 MB, not the 2.3 GB that
# its declared dependencies come to: cupy and the CUDA libraries are for the GPU, and CPU mode loads neither.
# Where it cannot be made, the last line says why and the status is 3; those tests then skip.
set -euo pipefail
dir=${1:?usage: nvforest_environment.sh DIR [PYTHON]}
python=$(command -v "${2:-.venv/bin/python}") || { echo "no python: ${2:-.venv/bin/python}"; exit 2; }

skip() { echo "the tests of nvForest will be skipped: $1"; rm -rf "$dir"; exit 3; }

[[ $(uname -s) == Linux ]] || skip "it has wheels for Linux only"
if [[ -x $dir/bin/python ]] && "$dir/bin/python" -c "import nvforest" 2>/dev/null; then
    exit 0
fi
rm -rf "$dir"
"$python" -m venv --without-pip "$dir" || skip "no environment can be made in $dir"
"$python" - "$dir" <<'END'
import pathlib, sys, sysconfig
ours = sysconfig.get_path("purelib")
theirs = sysconfig.get_path("purelib", vars={"base": sys.argv[1], "platbase": sys.argv[1]})
# `site` runs the .pth files of the other environment as well, which is how its editable packages are found.
(pathlib.Path(theirs) / "beside.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
END
rapids='26.10.*'
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --target "$(echo "$dir"/lib/python3.*/site-packages)" \
    "nvforest-cu13==$rapids" "libnvforest-cu13==$rapids" "libraft-cu13==$rapids" "librmm-cu13==$rapids" \
    "pylibraft-cu13==$rapids" "rmm-cu13==$rapids" 'rapids-logger==0.3.*' \
    'cuda-bindings>=13.0.1,<14' 'cuda-pathfinder>=1.2,<2' ||
    skip "pip could not install nvforest-cu13"
"$dir/bin/python" -c "import nvforest; print('nvForest', nvforest.__version__)" || skip "it does not import"
