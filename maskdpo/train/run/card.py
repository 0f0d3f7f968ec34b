"""The model card (README.md) of a trained model: what it was made from, with which settings, and what came out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskdpo.hub.card import card_template, join_card, new_header
from maskdpo.hub.header import CARD
from maskdpo.io import is_on_hub
from maskdpo.redact import HUB_NAMES, shown_model, shown_settings, without_paths
from maskdpo.run_folder import from_anywhere, read_rows
from maskdpo.run_record import RunMeta, holds, meta_file, read_meta
from maskdpo.schemas.training import EVALS, METRICS, SETTINGS
from maskdpo.train.config import TrainConfig

SHOWN = (
    "loss", "margin", "accuracy", "reward_kept_chosen", "reward_kept_rejected", "reward_masked_chosen",
    "reward_masked_rejected",
)  # fmt: skip

MASKED = "the wrong ones of the better answer and the right ones of the worse answer were left out"
COMPARED = {
    "dpo": "all of them counted",
    "mask-dpo": MASKED,
    "strict": f"{MASKED}, where sentences that state nothing count as wrong ones",
    "soft": f"{MASKED}, and the others counted by the confidence of their labels",
    "chosen-only": "the wrong ones of the better answer were left out",
    "rejected-only": "the right ones of the worse answer were left out",
}
"""What the loss takes of the sentences, by method."""

Rows = Sequence[Mapping[str, Any]]


def describe(out: Path, config: TrainConfig, run: RunMeta, best: int | None) -> dict[str, str]:
    """The card of a run's folder, and its settings as ``--config`` reads them, by file name."""
    card = model_card(out.name, config, run, out, read_rows(out / METRICS), read_rows(out / EVALS), best=best)
    names = {"model": config.model, "reference": config.reference}
    settings = config.model_dump(exclude_none=True) | {key: from_anywhere(name) for key, name in names.items() if name}
    return {CARD: card, SETTINGS: yaml.safe_dump(settings, sort_keys=False)}


def model_card(
    name: str, config: TrainConfig, run: RunMeta, folder: Path, steps: Rows, evals: Rows, *, best: int | None
) -> str:
    """The card.

    Args:
        name: its title.
        run: the record of this run.
        folder: where that record lies, to find what is recorded of its inputs.
        steps, evals: rows of ``metrics.jsonl`` and ``eval.jsonl``.
        best: the step whose weights these are, if not the last.
    """
    base = shown_model(config.model)
    on_hub = config.model in HUB_NAMES or not Path(config.model).expanduser().exists()
    adapter = bool(config.lora_r) and not config.merge
    head: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if on_hub:
        head["base_model"] = base
        head["base_model_relation"] = "adapter" if adapter else "finetune"
    own = ["mask-dpo"] * (config.method != "dpo") + ["lora"] * bool(config.lora_r)
    head["tags"] = ["maskdpo", "dpo", "hallucination", "factuality", *own]
    filters = {"cell": _cell, "figure": lambda value: "-" if value is None else f"{value:.4f}"}
    text = card_template("maskdpo.train.run", "model_card.md", filters).render(
        name=name,
        base=base,
        reference=shown_model(config.reference) if config.reference else None,
        adapter=adapter,
        compared=COMPARED.get(config.method, "a table of this method's own said which ones were left out"),
        config=config,
        settings=yaml.safe_dump(shown_settings(config.recorded()), sort_keys=False, allow_unicode=True).strip(),
        run=run,
        lineage=list(dict.fromkeys(lineage(run, folder))),  # prompts are an input of both answers and labels
        shown=SHOWN,
        first=steps[0] if steps else None,
        last=steps[-1] if steps else None,
        evals=evals,
        best=best,
    )
    return join_card(new_header(head), f"{text.strip()}\n")


def lineage(run: RunMeta, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Role, file name, SHA-256 and how it was made, of all inputs back to the prompts, as far as that is recorded."""
    for role, digest in run.inputs.items():
        recorded = run.paths.get(role, "")
        file = Path(recorded) if is_on_hub(Path(recorded)) else folder / recorded
        record = meta_file(file) if recorded and not is_on_hub(file) else None
        made = read_meta(record) if record and record.exists() and holds(file, digest) else None
        yield role, file.name, digest, _options(made) if made else "not recorded"
        if made and record:
            yield from lineage(made, record.parent)


def _options(made: RunMeta) -> str:
    """``build-pairs (strategy: best-worst, ...)``: what decided the result, without paths of the machine."""
    options = without_paths(made.options)
    shown = {key: value for key, value in options.items() if value not in (None, "", {}, []) and key != "prompt"}
    if isinstance(model := shown.get("model"), str):
        shown["model"] = shown_model(model)
    listed = ", ".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in shown.items()
    )
    return f"{made.command} ({listed})"


def _cell(value: object) -> str:
    """Text inside a Markdown table: nothing in it ends the cell."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
