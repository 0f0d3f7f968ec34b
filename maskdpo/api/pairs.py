"""From labels to pairs and datasets: ``build-pairs`` and ``push``."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from maskdpo import io
from maskdpo.api.given import files_given
from maskdpo.errors import UserError
from maskdpo.io.memory import File, as_file, as_files
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from maskdpo.dataset.hub.push import PushResult
    from maskdpo.dataset.stats import PairStats


class BuiltPairs(NamedTuple):
    """What ``build_pairs`` makes in memory."""

    train: list[Pair]
    test: list[Pair]
    """Pairs of held-out topics."""
    stats: "PairStats"


@overload
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: None = None,
    gold: File | None = None,
    **settings: Any,
) -> BuiltPairs: ...
@overload
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: File,
    gold: File | None = None,
    **settings: Any,
) -> "PairStats": ...
def build_pairs(
    prompts: File | Iterable[Prompt],
    annotations: File | Sequence[File] | Iterable[Annotation],
    *,
    out: File | None = None,
    gold: File | None = None,
    **settings: Any,
) -> "BuiltPairs | PairStats":
    """Build preference pairs that keep the labels of their sentences: ``maskdpo build-pairs``.

    Args:
        annotations: a path, several paths, or records.
        out: pair records; pairs of held-out topics go to ``NAME.test.jsonl`` beside this file.
        gold: annotations with labels of people, a file, which go before those of the judge.
        settings: of ``dataset.options.PairOptions``, such as ``strategy``, ``score``, ``min_margin`` or ``test_size``.

    Returns:
        Counts of everything that was kept and dropped; without ``out`` also the pairs themselves.
    """
    from maskdpo.dataset.options import PairOptions
    from maskdpo.dataset.pairs import build_pairs as build
    from maskdpo.dataset.write import test_file

    options = load_settings(PairOptions, settings)
    with (
        as_file(prompts, Prompt, name="prompts") as asked,
        files_given(annotations, Annotation, name="annotations") as labelled,
        tempfile.TemporaryDirectory() as folder,
    ):
        pairs = Path(folder) / "pairs.jsonl" if out is None else Path(out)
        stats = build(asked, labelled, pairs, options, gold_file=Path(gold) if gold is not None else None)
        if out is not None:
            return stats
        train, test = (list(io.read_records(file, Pair)) if file.exists() else [] for file in (pairs, test_file(pairs)))
        return BuiltPairs(train, test, stats)


def push_dataset(
    prompts: File | Iterable[Prompt],
    annotations: File | Iterable[Annotation],
    pairs: File | Iterable[Pair],
    *,
    repo: str,
    license: str,
    **settings: Any,
) -> "PushResult":
    """Publish labelled data as a dataset on the Hugging Face Hub, with a card: ``maskdpo push``.

    Args:
        repo: ``user/name``, or ``name`` for your own account.
        license: by its id on the Hub, such as ``cc-by-4.0``.
        settings: ``agreement``, ``decisions`` (files) and ``names``, ``private`` and ``overwrite_schema``.
    """
    from maskdpo.dataset.hub.push import People, push
    from maskdpo.dataset.hub.settings import PushSettings
    from maskdpo.people.publish import published

    if "dry_run" in settings:
        raise UserError("`dry_run` is for the command `maskdpo push`")
    with as_files(prompts=(prompts, Prompt), annotations=(annotations, Annotation), pairs=(pairs, Pair)) as files:
        loaded = load_settings(PushSettings, {**files, "repo": repo, "license": license, **settings})
        return push(loaded, People(*published(loaded.decisions, names=loaded.names)))
