"""The wheel in empty environments: what a plain ``pip install`` can do, and what it says where a package is missing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uv

from tests.backends.fault_server import Answer, chat, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
MINOR_VERSIONS = (11, 12, 13, 14)
HEAVY = ("torch", "transformers", "safetensors", "matplotlib", "huggingface_hub", "datasets", "vllm", "peft", "spacy")
PROMPT = {
    "id": "q1",
    "prompt": "Where is the Seine?",
    "topic": "Seine",
    "reference": ["The Seine is a river in France. It flows through Paris and is 777 kilometres long."],
}
ANSWERS = (
    "The Seine is a river in France. It is 777 kilometres long.",
    "The Seine is a river in Spain. It is 1,500 kilometres long.",
)


def interpreter(minor: int) -> str:
    """A Python 3.``minor``: the one of these tests, one on the path, or one of pyenv's."""
    if sys.version_info[:2] == (3, minor):
        return sys.executable
    name = f"python3.{minor}"
    found = [shutil.which(name), *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))]
    for python in filter(None, found):  # pyenv's own python3.12 on the path fails where it is not chosen
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"no Python 3.{minor} here")


def run_uv(*arguments: str | Path) -> None:
    run = subprocess.run(
        [uv.find_uv_bin(), "--quiet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run_uv("build", "--wheel", "--out-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


class Installed:
    """An environment with nothing but the wheel and what it needs, and a folder with prompts and responses."""

    def __init__(self, python: str, wheel: Path, folder: Path) -> None:
        self._bin, self.folder = folder / "venv/bin", folder
        responses = [{"id": f"q1-{i}", "prompt_id": "q1", "response": text} for i, text in enumerate(ANSWERS)]
        self.write("prompts.jsonl", [PROMPT])
        self.write("responses.jsonl", responses)
        run_uv("venv", "--python", python, folder / "venv")
        run_uv("pip", "install", "--python", self._bin / "python", "--constraint", ROOT / "constraints.txt", wheel)
        unwanted = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
        self._environment = {name: value for name, value in os.environ.items() if name not in unwanted}

    def write(self, name: str, rows: list[Any]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._bin / command[0], *command[1:]],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def maskdpo(self, *arguments: str) -> str:
        run = self.run("maskdpo", *arguments)
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture(scope="module", params=MINOR_VERSIONS)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    python = interpreter(request.param)
    return Installed(python, wheel, tmp_path_factory.mktemp(f"python3.{request.param}-"))


def test_the_base_install_labels_pairs_and_evaluates(installed: Installed) -> None:
    code = f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"
    assert installed.run("python", "-c", code).stdout == "[]\n"

    assert "build-pairs" in installed.maskdpo("--help")
    installed.maskdpo("validate", "prompts.jsonl")
    installed.maskdpo("annotate", "prompts.jsonl", "responses.jsonl", "--judge", "lexical", "--out", "labels.jsonl")
    installed.maskdpo("build-pairs", "prompts.jsonl", "labels.jsonl", "--test-size", "0", "--out", "pairs.jsonl")
    installed.maskdpo("evaluate", "labels.jsonl", "--prompts", "prompts.jsonl")
    installed.maskdpo("report", "pairs.jsonl", "--out", "report.html")

    [pair] = installed.read("pairs.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ANSWERS
    assert "777 kilometres" in (installed.folder / "report.html").read_text()


OF_THESE_TESTS = pytest.mark.parametrize("installed", [sys.version_info.minor], indirect=True)


@OF_THESE_TESTS
def test_the_base_install_labels_through_a_server(installed: Installed) -> None:
    with running() as server:
        server.script = lambda asked: Answer(chat("supported"))
        installed.maskdpo(
            "annotate", "prompts.jsonl", "responses.jsonl", "--judge", "llm", "--model", "m", "--backend", "openai",
            "--api-base", server.url, "--template-option", "enable_thinking=false", "--out", "judged.jsonl",
        )  # fmt: skip
    judged = [sentence for row in installed.read("judged.jsonl") for sentence in row["sentences"]]
    assert [sentence["label"] for sentence in judged] == ["no_hallucination"] * 4


@OF_THESE_TESTS
def test_the_base_install_compares_with_gold_labels(installed: Installed) -> None:
    installed.write("gold.jsonl", [row | {"judge": None} for row in installed.read("labels.jsonl")])
    assert "kappa" in installed.maskdpo("evaluate", "labels.jsonl", "--gold", "gold.jsonl")


@OF_THESE_TESTS
@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("train pairs.jsonl --model org/model --out model", "torch", "train"),
        ("sample prompts.jsonl --model org/model --out sampled.jsonl", "transformers", "transformers"),
        ("inspect pairs.jsonl --model org/model", "transformers", "transformers"),
        ("report pairs.jsonl --model org/model --out tokens.html", "transformers", "transformers"),
        (
            "annotate prompts.jsonl responses.jsonl --judge llm --model org/model --out labels2.jsonl",
            "transformers",
            "transformers",
        ),
    ],
)
def test_a_missing_package_is_answered_with_the_command_that_installs_it(
    installed: Installed, command: str, package: str, extra: str
) -> None:
    run = installed.run("maskdpo", *command.split())
    assert run.returncode == 2, run.stderr
    assert run.stderr == (
        f"error: this needs the package {package}, which is not installed. "
        f"Install it with: pip install 'maskdpo[{extra}]'\n"
    )
