"""The trained model as a Hugging Face folder that transformers and vLLM load as it is."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskdpo.identity import PROCESSOR_FILES
from maskdpo.models import resolve_model
from maskdpo.run_folder import from_anywhere, moved_in_last_config
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.adapter import merge
from maskdpo.train.model.load import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def export(
    policy: Policy, tokenizer: "PreTrainedTokenizerBase", config: TrainConfig, out: Path, texts: Mapping[str, str]
) -> None:
    """Write weights (safetensors), configs, tokenizer and chat template. An adapter is merged unless ``merge`` is off.

    With a whole model come the processor files of its base, without which a model that also takes images cannot be
    served.

    The policy cannot be trained on after this.

    Args:
        texts: further files by name, such as the card.
    """
    model: Any = policy.adapter
    if policy.adapter is None or config.merge:
        model = policy.model if policy.adapter is None else merge(policy.adapter)
        model = model.to(getattr(torch, config.written_dtype))
    with moved_in_last_config(out) as folder:
        model.save_pretrained(folder)
        _name_base(folder / "adapter_config.json")
        tokenizer.save_pretrained(folder)
        if model is not policy.adapter:
            _copy_processor(resolve_model(config.model), model.config, folder)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _copy_processor(base: str, config: "PreTrainedConfig", folder: Path) -> None:
    """Copy the files of the base from its folder or, as far as they are there, from the Hub at the commit of its
    config."""
    from transformers.utils import cached_file

    takes_more_than_text = config.get_text_config() is not config
    for name in PROCESSOR_FILES if takes_more_than_text else ():
        found = cached_file(
            base,
            name,
            revision=getattr(config, "_commit_hash", None),
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found:
            shutil.copyfile(found, folder / name)


def _name_base(adapter_config: Path) -> None:
    """PEFT records the base model as it was named, which may be a path relative to the present folder."""
    if adapter_config.exists():
        settings = json.loads(adapter_config.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = from_anywhere(settings["base_model_name_or_path"])
        adapter_config.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")
