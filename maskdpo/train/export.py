"""The trained model as a Hugging Face folder that transformers and vLLM load as it is."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskdpo.identity import model_files
from maskdpo.io.write import move_into_place
from maskdpo.train.card import from_anywhere
from maskdpo.train.config import TrainConfig
from maskdpo.train.lora import merge
from maskdpo.train.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def export(
    policy: Policy, tokenizer: "PreTrainedTokenizerBase", config: TrainConfig, out: Path, texts: Mapping[str, str]
) -> None:
    """Weights (safetensors), configs, tokenizer and chat template; an adapter is merged unless it is wanted alone.

    The policy cannot be trained on after this.

    Args:
        texts: further files by name, such as the card.
    """
    model: Any = policy.adapter
    if policy.adapter is None or config.merge:
        model = policy.model if policy.adapter is None else merge(policy.adapter)
        if config.export_dtype == "bfloat16":
            model = model.to(torch.bfloat16)
    with moved_in_last_config(out) as folder:
        model.save_pretrained(folder)
        _name_base(folder / "adapter_config.json")
        tokenizer.save_pretrained(folder)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _name_base(adapter_config: Path) -> None:
    """PEFT writes down where the base model lies as it was named, which may be relative to the present folder."""
    if adapter_config.exists():
        settings = json.loads(adapter_config.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = from_anywhere(settings["base_model_name_or_path"])
        adapter_config.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


@contextmanager
def moved_in_last_config(out: Path) -> Iterator[Path]:
    """A folder beside, moved into ``out`` file by file, the config last: what can be loaded is whole.

    Nothing of a model that was there before stays: no adapter, no shard that the new one does not have.
    """
    for left_over in out.glob(".export-*"):
        shutil.rmtree(left_over)
    temporary = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    try:
        yield temporary
        names = {file.name for file in temporary.iterdir()}
        for file in model_files(out):
            if file.name not in names:
                file.unlink()
        for file in sorted(temporary.iterdir(), key=lambda file: file.name in ("config.json", "adapter_config.json")):
            file.chmod(0o644)
            move_into_place(file, out / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
