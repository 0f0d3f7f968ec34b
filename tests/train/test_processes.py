"""The processes that encode a large file: how many there are, what they import, and what is said when one ends."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_run import RIGHT, WRONG, config_for
from train_helpers import make_pair

from maskdpo.errors import UserError
from maskdpo.io import write_records
from maskdpo.io.blocks import Block, blocks
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Pair
from maskdpo.train.data import processes
from maskdpo.train.data.encode import encoder_for


@pytest.fixture
def block(tmp_path: Path) -> Block:
    pairs = [make_pair([("Yes.", RIGHT)], [("No.", WRONG)], id=f"pair-{i}") for i in range(5)]
    write_records(tmp_path / "pairs.jsonl", pairs)
    return next(blocks(tmp_path / "pairs.jsonl", Pair))


@pytest.fixture
def given(tiny_model: str) -> dict[str, Any]:
    encoder = encoder_for(config_for(tiny_model), load_tokenizer(tiny_model))
    return {"encoder": encoder.packed(), "trust_remote_code": False}


def test_there_are_few_processes_however_many_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 192)
    file = tmp_path / "pairs.jsonl"
    file.touch()
    for size, limit, number in (
        (1_000, None, 1),
        (30_000_000, None, 2),
        (10**10, None, 16),
        (10**10, 100, 1),
        (10**10, 10**6, 16),
    ):
        os.truncate(file, size)
        assert processes._processes_for(file, limit) == number
    assert processes._processes_for(tmp_path, None) == 1


def test_a_process_that_encodes_imports_no_torch_of_its_own(given: dict[str, Any], block: Block) -> None:
    """transformers does, with the tokenizer."""
    asked, packed = io.BytesIO(), block.packed()
    assert packed is not None
    processes._send(asked, given)
    processes._send(asked, *packed)
    script = "import sys; from maskdpo.train.data import processes; assert 'torch' not in sys.modules; "
    script += "processes.serve(sys.stdin.buffer, sys.stdout.buffer)"
    done = subprocess.run([sys.executable, "-c", script], input=asked.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    answer = processes._received(io.BytesIO(done.stdout))
    assert answer is not None
    assert len(answer[0]["records"]) == 5


def test_a_file_of_the_user_is_no_module_of_python(
    given: dict[str, Any], block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    process = processes._Process(given)
    try:
        found = process.encode(block)
        assert found is not None
        assert len(found.rows) == 5
    finally:
        process.stop()


def test_how_a_process_has_ended_is_told(given: dict[str, Any], block: Block) -> None:
    process = processes._Process(given)
    process._process.kill()
    with pytest.raises(UserError, match="was ended by SIGKILL, as the kernel does where memory runs out"):
        process.encode(block)
    process.stop()
    given["encoder"]["settings"]["model"] = "./nowhere"
    process = processes._Process(given)
    with pytest.raises(UserError, match=r"has failed \(exit code 1\); what it has printed says why"):
        process.encode(block)
    process.stop()
