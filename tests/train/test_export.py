"""What a run leaves: a folder that loads as it is, its type, its card and settings, and the same on the Hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file
from test_probe import gemma3_with_images, pair_of
from test_run import cache_folder, config_for, pairs_file

from maskdpo.io import write_records
from maskdpo.models import load_tokenizer
from maskdpo.run_folder import moved_in_last_config, published
from maskdpo.run_record import META_IN_FOLDER, meta_file, read_meta
from maskdpo.schemas import Prompt
from maskdpo.settings_reading import load_settings
from maskdpo.stage_run import Run
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.load import load_policy
from maskdpo.train.run.card import describe
from maskdpo.train.run.export import export
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset" / "hub"))
import hub_server

pytestmark = pytest.mark.slow

__all__ = ["cache_folder", "pairs_file"]  # fixtures


def head_of(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_type_of_the_written_weights(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    kept: dict[str, dict[str, torch.Tensor]] = {}
    for dtype in ("float32", "bfloat16"):
        for lora_r in (0, 4):
            out = tmp_path / f"{dtype}-{lora_r}"
            train(pairs_file, out, config_for(tiny_model, export_dtype=dtype, lora_r=lora_r))
            kept[out.name] = load_file(out / "model.safetensors")
            assert {tensor.dtype for tensor in kept[out.name].values()} == {getattr(torch, dtype)}
            assert json.loads((out / "config.json").read_text())["dtype"] == dtype
            assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == getattr(torch, dtype)
    for lora_r in (0, 4):
        for name, tensor in kept[f"float32-{lora_r}"].items():
            assert torch.equal(tensor.to(torch.bfloat16), kept[f"bfloat16-{lora_r}"][name])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_weights_that_trained_in_bfloat16_are_written_as_asked(
    dtype: str | None, tiny_model: str, tmp_path: Path
) -> None:
    config = config_for(tiny_model, weights="bfloat16", export_dtype=dtype)
    policy = load_policy(config, [pair_of("pair", 4, 3, 3)], "cpu")
    (tmp_path / "out").mkdir()
    export(policy, load_tokenizer(tiny_model), config, tmp_path / "out", {})
    written = getattr(torch, dtype or "bfloat16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {written}


def test_the_settings_in_the_folder_repeat_the_run(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the base model was named by a relative path, which means another model in another folder."""
    monkeypatch.chdir(Path(tiny_model).parent)
    config = config_for(Path(tiny_model).name, max_steps=2, loss="simpo", beta=2.0, lora_r=2)
    train(pairs_file, tmp_path / "out", config)
    file = tmp_path / "out" / "train.yaml"
    assert load_settings(TrainConfig, {}, file) == config.model_copy(update={"model": tiny_model})
    recorded = json.loads((tmp_path / "out" / "maskdpo_run.json").read_text())["options"]
    assert {name: recorded[name] for name in config.recorded()} == config.recorded()


def test_the_folder_has_what_is_needed_to_generate(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    train(pairs_file, tmp_path / "out", config_for(tiny_model, max_steps=1))
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "README.md", "train.yaml", "curves.png", "metrics.jsonl",
    } <= names  # fmt: skip
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)


def test_the_card_tells_where_the_data_comes_from(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    """Down to the prompts, out of the records beside the pairs; a file that has changed since is not described."""
    data = tmp_path / "data"
    data.mkdir()
    names = ("prompts.jsonl", "responses.jsonl", "annotations.jsonl", "pairs.jsonl")
    prompts, answers, notes, pairs = (data / name for name in names)
    answers.write_text("{}\n")
    write_records(prompts, [Prompt(id="q", prompt="Where?")])
    notes.write_text("{}\n")
    pairs.write_bytes(pairs_file.read_bytes())
    for file, command, options, inputs in (
        (answers, "sample", {"model": "small"}, {"prompts": prompts}),
        (
            notes,
            "annotate",
            {"name": "llm", "model": "big|judge", "protocol": "anah"},
            {"prompts": prompts, "responses": answers},
        ),
        (pairs, "build-pairs", {"strategy": "best-worst"}, {"annotations": notes}),
    ):
        Run(meta_file(file), command, options, inputs, restart="").finish({})
    train(pairs, tmp_path / "out", config_for(tiny_model, max_steps=3), RunOptions(eval_file=pairs_file))
    card = (tmp_path / "out" / "README.md").read_text()
    lines = [line for line in card.splitlines() if line.startswith(("| pairs", "| annotations", "| prompts", "| eval"))]
    assert [line.split(" | ")[1] for line in lines] == [
        "pairs.jsonl",
        "annotations.jsonl",
        "prompts.jsonl",
        "pairs.jsonl",
    ]
    assert "build-pairs (strategy: best-worst)" in lines[0]
    assert "annotate (name: llm, model: big\\|judge, protocol: anah)" in lines[1]
    assert "not recorded" in lines[2] and "not recorded" in lines[3]
    for name in ("maskdpo", "Gu", "2503.02846", "| loss | 0.69", "curves.png", "lr: 0.001"):
        assert name in card
    assert str(tmp_path) not in card
    assert head_of(card)["library_name"] == "transformers"
    assert "base_model" not in head_of(card)  # it is a folder, of which the Hub knows nothing

    record = read_meta(tmp_path / "out" / META_IN_FOLDER)
    assert record is not None
    assert "wrong ones of the better answer and the right ones of the worse answer were left out" in card
    for settings, said in (
        ({"method": "dpo"}, "trained with [DPO](https://arxiv.org/abs/2305.18290)"),
        ({"method": "dpo"}, "all of them counted"),
        ({"method": "chosen-only"}, "the wrong ones of the better answer were left out."),
        ({"method": "strict", "hold_weight": 0.01}, "Every token of both answers was held near the reference"),
    ):
        other = describe(tmp_path / "out", config_for(tiny_model, **settings), record, None)["README.md"]
        assert said in " ".join(other.split())
        assert ("mask-dpo" in head_of(other)["tags"]) is (settings["method"] != "dpo")

    notes.write_text("{} \n")
    train(pairs, tmp_path / "changed", config_for(tiny_model, max_steps=1))
    changed = (tmp_path / "changed" / "README.md").read_text()
    assert "build-pairs (strategy" in changed
    assert "big" not in changed


def test_an_adapter_finds_its_base_from_everywhere_and_its_card_says_what_it_is(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    monkeypatch.chdir(Path(tiny_model).parent)
    config = config_for(Path(tiny_model).name, max_steps=1, lora_r=2, merge=False)
    train(pairs_file, tmp_path / "out", config)
    monkeypatch.chdir(tmp_path)
    assert AutoPeftModelForCausalLM.from_pretrained("out").peft_config["default"].base_model_name_or_path == tiny_model
    card = (tmp_path / "out" / "README.md").read_text()
    assert head_of(card)["library_name"] == "peft"
    assert "lora" in head_of(card)["tags"]
    assert "This is a LoRA adapter" in card


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """The stand-in of the Hub, which knows datasets, with the same routes for models."""
    for method, pattern, handler in list(hub_server.ROUTES):
        if "datasets/" in pattern:
            other = pattern.replace("/api/datasets/", "/api/models/").replace("/datasets/", "/")
            monkeypatch.setattr(hub_server, "ROUTES", [*hub_server.ROUTES, (method, other, handler)])
    with hub_server.serve() as hub:
        yield hub


def push(
    hub: hub_server.Hub, folder: Path, model: str, pairs: Path, repo: str, **env: str
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    clean |= {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    line = [sys.executable, "-W", "ignore", "-m", "maskdpo", "train", str(pairs), "--model", model, "--out", "out"]
    line += ["--max-steps", "1", "--dtype", "float32", "--push", repo]
    return subprocess.run(
        line, env=clean | {"HF_TOKEN": hub_server.WRITER} | env, cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_pushed_model_is_private_and_whole_and_can_be_pushed_again(
    hub: hub_server.Hub, tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    refused = push(hub, tmp_path, tiny_model, pairs_file, "facts", HF_TOKEN="hf_wrong")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --push facts: the token is not valid; set HF_TOKEN or log in")
    assert not (tmp_path / "out").exists(), "a push that must fail fails before training"

    done = push(hub, tmp_path, tiny_model, pairs_file, "facts")
    assert done.returncode == 0, done.stderr
    assert hub.repos["me/facts"].private
    assert hub.commits("me/facts") == 2  # the Hub's own first one, and ours
    files = hub.files("me/facts")
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
        "curves.png",
    ):
        assert files[name] == (tmp_path / "out" / name).read_bytes()
    assert "maskdpo_run.json" not in files
    assert hub_server.WRITER not in done.stdout + done.stderr

    hub.faults.append(hub_server.Fault("POST", "/preupload/", 403))
    failed = push(hub, tmp_path, tiny_model, pairs_file, "me/facts")
    assert failed.returncode == 2, failed.stderr
    assert "this very run is complete" in failed.stderr
    assert "error: pushing to me/facts: the token has no right to do this" in failed.stderr
    assert push(hub, tmp_path, tiny_model, pairs_file, "me/facts").returncode == 0
    assert hub.commits("me/facts") == 2, "nothing has changed"


PUSH_TWICE = """
import sys
from pathlib import Path
from maskdpo.train.run.push import push_model
for folder in sys.argv[1:]:
    print(push_model(Path(folder), "me/facts"))
"""


def test_a_repository_holds_the_files_of_the_last_push_and_no_path(
    hub: hub_server.Hub, tiny_model: str, pairs_file: Path, tmp_path: Path
) -> None:
    """An adapter, then the whole model: what loads an adapter where it finds one must find none."""
    folders = [tmp_path / "adapter", tmp_path / "whole"]
    for folder, merge in zip(folders, (False, True), strict=True):
        train(pairs_file, folder, config_for(tiny_model, max_steps=1, lora_r=2, merge=merge))
    published_files = [
        {name: sent if isinstance(sent, bytes) else sent.read_bytes() for name, sent in published(folder).items()}
        for folder in folders
    ]
    assert "adapter_model.safetensors" in published_files[0]
    assert json.loads(published_files[0]["adapter_config.json"])["base_model_name_or_path"] == Path(tiny_model).name
    assert yaml.safe_load(published_files[1]["train.yaml"])["model"] == Path(tiny_model).name
    for name, content in [item for files in published_files for item in files.items()]:
        for path in (tmp_path, Path(tiny_model).parent, pairs_file.parent, Path.home()):
            assert str(path).encode() not in content, (name, path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PUSH_TWICE, *map(str, folders)],
        env=environment | {"HF_TOKEN": hub_server.WRITER}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "files that are not of this run, which are deleted: adapter_config.json, adapter_model" in done.stderr
    commits = [files for _, files in hub.repos["me/facts"].commits]
    assert [set(files) - {".gitattributes"} for files in commits[1:]] == [set(files) for files in published_files]
    assert ".gitattributes" in commits[0]
    assert ".gitattributes" in commits[-1]


@pytest.mark.parametrize("on_hub", [False, True])
def test_a_model_with_images_keeps_the_processor_of_its_base(
    on_hub: bool, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repo = tmp_path / "hub" / "models--org--m"
    base = repo / "snapshots" / commit
    gemma3_with_images().save_pretrained(base)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kept = ("preprocessor_config.json", "processor_config.json", "chat_template.json")
    for name in kept:
        (base / name).write_text(json.dumps({"of": name}))
    config = config_for("org/m" if on_hub else str(base), max_steps=1)
    policy = load_policy(config, [pair_of("pair", 4, 3, 3)], "cpu")
    (tmp_path / "out").mkdir()
    export(policy, load_tokenizer(tiny_model), config, tmp_path / "out", {})
    for name in kept:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert not (tmp_path / "out" / "video_preprocessor_config.json").exists()


def test_further_chat_templates_are_written_and_pushed(tiny_model: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer, out = load_tokenizer(tiny_model), tmp_path / "out"
    tokenizer.chat_template = {"default": tokenizer.chat_template, "rag": "{{ messages }}"}
    (out / "additional_chat_templates").mkdir(parents=True)
    (out / "additional_chat_templates" / "old.jinja").touch()
    config = config_for(tiny_model, max_steps=1)
    policy = load_policy(config, [pair_of("pair", 4, 3, 3)], "cpu")
    export(policy, tokenizer, config, out, {"train.yaml": "model: org/m"})
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer.chat_template
    rag = "additional_chat_templates/rag.jinja"
    assert published(out)[rag] == out / rag
    assert os.access(out / "additional_chat_templates", os.X_OK)
    assert len(list((out / "additional_chat_templates").iterdir())) == 1


def test_an_export_leaves_nothing_of_the_model_before(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "model-00002-of-00002.safetensors", "config.json"):
        (out / name).write_text("{}")
    own = ("metrics.jsonl", "log.txt", "results.json", "my_judge.py", "notes.jinja")
    for name in own:
        (out / name).write_text("of the user")
    (tmp_path / "weights").touch()
    (out / "model.safetensors").symlink_to(tmp_path / "weights")
    with moved_in_last_config(out) as folder:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("new")
    assert {file.name: file.read_text() for file in out.iterdir()} == {
        "config.json": "new", "model.safetensors": "new", **dict.fromkeys(own, "of the user"),
    }  # fmt: skip
    assert (tmp_path / "weights").read_text() == "new", "a symbolic link stays one"
    assert (out / "model.safetensors").is_symlink()
