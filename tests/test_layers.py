"""Imports point one way, and light commands stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


def test_import_contracts_hold() -> None:
    pytest.importorskip("importlinter")
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("maskdpo.application", ["torch", "transformers", "sklearn", "openai", "spacy", "numpy"]),
        ("maskdpo.sample", ["torch", "transformers"]),
        ("maskdpo.annotate.labelling", ["torch", "transformers", "maskdpo.train", "spacy", "nltk"]),
        ("maskdpo.annotate.judges", ["torch", "transformers", "maskdpo.train", "spacy", "nltk"]),
        ("maskdpo.dataset.pairs", ["torch", "transformers", "maskdpo.annotate", "maskdpo.train"]),
        ("maskdpo.evaluate.report", ["torch", "transformers", "maskdpo.annotate", "maskdpo.train"]),
        (
            "maskdpo.formats.importing",
            ["torch", "transformers", "maskdpo.annotate", "maskdpo.train", "maskdpo.dataset"],
        ),
        ("maskdpo.lineage", ["torch", "transformers", "maskdpo.annotate", "maskdpo.train", "maskdpo.dataset"]),
        (
            "maskdpo.pipeline.execute",
            ["torch", "transformers", "maskdpo.annotate", "maskdpo.train", "maskdpo.commands"],
        ),
        ("maskdpo.train.data.encode", ["torch", "transformers", "maskdpo.train.config", "maskdpo.train.losses"]),
        pytest.param(
            "maskdpo.train.run.train",
            ["spacy", "sentencex", "nltk", "maskdpo.annotate", "maskdpo.backends"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stage_loads_only_what_it_needs(module: str, unwanted: list[str]) -> None:
    run = python(f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_help_of_every_command_loads_no_torch() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom maskdpo.application import app\n"
        "names = [c.name or c.callback.__name__ for c in app.registered_commands]\n"
        "assert all(CliRunner().invoke(app, [n, '--help']).exit_code == 0 for n in names), names\n"
        "print(len(names), 'torch' in sys.modules)"
    )
    run = python(code)
    assert run.returncode == 0, run.stderr
    count, torch = run.stdout.split()
    assert int(count) >= 12
    assert torch == "False"
