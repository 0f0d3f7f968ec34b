"""Models by name: what tells another one from the same one, by its content; devices, and in what type they compute."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from maskdpo import identity
from maskdpo.identity import fingerprint, model_files
from maskdpo.redact import shown_model
from maskdpo.train.model.memory import free_bytes
from maskdpo.train.run.figures import peak_memory_gb

A, B = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_copied_or_touched_model_is_the_same_one(folder: Path, tmp_path: Path) -> None:
    found = fingerprint(str(folder))
    assert len(found) == 64
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    (copy / "maskdpo_run.json").write_text("{}")
    (copy / "metrics.jsonl").write_text("{}")
    os.utime(folder / "model.safetensors", (1, 1))
    (tmp_path / "link").symlink_to(folder)
    assert {fingerprint(str(path)) for path in (folder, copy, tmp_path / "link")} == {found}


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "additional_chat_templates/rag.jinja", "tokenizer.model", "merges.txt",
        "adapter_model.safetensors", "modeling_own.py", "helpers.py", "language.safetensors", "processor_config.json",
    ],
)  # fmt: skip
def test_any_changed_file_makes_another_model(name: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text("from .helpers import help\n")
    (folder / "helpers.py").write_text("help = 1\n")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "language.safetensors"}}')
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        file.write_bytes(b"some text")
    before, stat = fingerprint(str(folder)), file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and date
    assert fingerprint(str(folder)) != before
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(str(folder)) == before


def test_files_of_the_user_are_no_part_of_a_model(folder: Path) -> None:
    before, files = fingerprint(str(folder)), model_files(folder)
    for name in ("results.json", "log.txt", "my_judge.py", "notes.jinja", "other.safetensors", "train.yaml"):
        (folder / name).write_text("{}")
    assert model_files(folder) == files
    assert fingerprint(str(folder)) == before


def test_content_is_read_once(folder: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = identity.sha256
    monkeypatch.setattr(identity, "sha256", lambda file: read.append(file.name) or real(file))
    found = fingerprint(str(folder))
    assert {"model.safetensors", "chat_template.jinja"} <= set(read)
    read.clear()
    assert fingerprint(str(folder)) == found
    assert read == []
    (folder / "config.json").touch()
    assert fingerprint(str(folder)) == found
    assert read == ["config.json"]
    (cache_folder / "hashes.json").write_text("[torn")
    assert fingerprint(str(folder)) == found
    cache_folder.chmod(0o500)
    shutil.copy(folder / "config.json", folder / "added_tokens.json")
    assert fingerprint(str(folder)) != found, "without a cache all is read anew"
    cache_folder.chmod(0o700)


def test_what_an_earlier_version_has_recorded_goes_on(folder: Path) -> None:
    old = identity._by_dates(folder)
    assert len(old) == 16
    assert fingerprint(str(folder), old) == old
    os.utime(folder / "config.json", (1, 1))
    assert len(fingerprint(str(folder), old)) == 64


def cached(tmp_path: Path, commit: str) -> None:
    """What a download of org/m leaves."""
    repo = tmp_path / "hub" / "models--org--m"
    for place, text in (("refs/main", commit), (f"snapshots/{commit}/config.json", "{}")):
        (repo / place).parent.mkdir(parents=True, exist_ok=True)
        (repo / place).write_text(text)


def test_a_model_on_the_hub_is_known_by_its_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fingerprint("org/m") == "org/m"
    assert fingerprint("llama3:8b") == "llama3:8b"
    assert fingerprint("org/m", f"org/m@{A}") == f"org/m@{A}"
    assert "its commit is not known on this machine" in " ".join(capsys.readouterr().err.split())
    cached(tmp_path, A)
    assert fingerprint("org/m") == f"org/m@{A}"
    assert fingerprint("org/m", "org/m") == "org/m", "what was not known then is no other model now"
    cached(tmp_path, B)
    assert fingerprint("org/m", f"org/m@{A}") == f"org/m@{B}"
    assert fingerprint("gpt-4", "gpt-4o") == "gpt-4"


def test_what_a_model_is_called_in_public(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_model(str(folder)) == "model"
    assert shown_model("org/m") == "org/m"
    assert shown_model("smollm2") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert shown_model("/gone/small") == "small", "a folder that is no longer there"
    monkeypatch.chdir(folder)
    assert shown_model(".") == "model"
    monkeypatch.chdir(tmp_path)
    assert shown_model("../" + tmp_path.name + "/model/") == "model"


def test_what_is_free_and_what_is_held_on_mps_is_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12_000_000_000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5_000_000_000)
    assert free_bytes("mps") == 7_000_000_000
    assert peak_memory_gb(torch.device("mps")) == 5
    assert 0.01 < peak_memory_gb(torch.device("cpu")) < 1000
