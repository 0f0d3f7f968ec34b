"""The trained model as a Hugging Face folder that transformers and vLLM load as it is."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: Path) -> None:
    """Weights (safetensors), configs, tokenizer and chat template."""
    with moved_in_last_config(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def moved_in_last_config(out: Path) -> Iterator[Path]:
    """A folder beside, moved into ``out`` file by file, the config last: what can be loaded is whole."""
    for left_over in out.glob(".export-*"):
        shutil.rmtree(left_over)
    temporary = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    try:
        yield temporary
        for file in sorted(temporary.iterdir(), key=lambda file: file.name in ("config.json", "adapter_config.json")):
            file.chmod(0o644)
            file.replace(out / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
