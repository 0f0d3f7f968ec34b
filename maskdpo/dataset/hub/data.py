"""The Parquet files of a dataset, written in one pass over each input that also counts the figures of the card."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from maskdpo.console import ProgressBar, progress, warn
from maskdpo.dataset.draw import Split, split_of
from maskdpo.dataset.hub.figures import Figures
from maskdpo.dataset.write import own_test_file, test_file
from maskdpo.errors import InputError, UserError
from maskdpo.io import CONFIGS, Located, read_located
from maskdpo.io.parquet import TableWriter, is_chat
from maskdpo.io.sources import dataset_of
from maskdpo.redact import without_paths
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Annotation, Decision, Pair, Prompt

SHARD_BYTES = 256 * 1024 * 1024
"""A file of at least this size is followed by another one."""


class Files(NamedTuple):
    """The files to publish."""

    prompts: Path
    annotations: Path
    pairs: Path

    @property
    def test_pairs(self) -> Path | None:
        """The pairs of held-out topics, if ``build-pairs`` made them together with the pairs."""
        return own_test_file(self.pairs)


class PromptInfo(NamedTuple):
    """What is kept of a prompt, for the records that refer to it."""

    split: Split
    language: str | None


@dataclass
class ConfigSummary:
    """What was written of one config."""

    chat: bool = False
    rows: dict[Split, int] = field(default_factory=dict)
    bytes: dict[Split, int] = field(default_factory=dict)
    """Size in memory, uncompressed, in bytes."""


@dataclass(frozen=True)
class Contents:
    """What was written, and the figures of the card."""

    parts: dict[str, ConfigSummary]
    figures: Figures

    @property
    def rows(self) -> int:
        return sum(sum(part.rows.values()) for part in self.parts.values())


Write = Callable[[Split, Located[Any]], None]


def write_data(folder: Path, files: Files, decisions: Sequence[Decision] = ()) -> Contents:
    """Write ``CONFIG/SPLIT-*.parquet`` for all configs into a folder. Memory grows only with ids, topics and decisions.

    Without decisions there is no config of them.
    """
    for file in files:
        if dataset_of(file) is not None:
            raise InputError("is a dataset already; push takes JSONL or Parquet files", path=file)
    left_out = test_file(files.pairs)
    if left_out.exists() and files.test_pairs is None:
        warn(f"{left_out.name} is left out: no record beside {files.pairs.name} says that build-pairs has made both")
    parts = {config: ConfigSummary() for config in CONFIGS if config != "decisions" or decisions}
    figures = Figures()
    topics = _topics(files)
    known = {
        prompt.record.id: PromptInfo(topics(prompt.record.topic_or_id), prompt.record.language)
        for prompt in read_located(files.prompts, Prompt)
    }
    with progress("push: writing", None, "records") as bar:
        with shards(folder, "pairs", parts["pairs"], bar) as write:
            for split, pair in _pairs(files):
                _check_prompt_id(pair, known)
                write(split, pair)
                figures.add_pair(pair.record)
        with shards(folder, "prompts", parts["prompts"], bar) as write:
            for prompt in read_located(files.prompts, Prompt):
                write(known[prompt.record.id].split, prompt)
                figures.add_prompt(prompt.record)
        with shards(folder, "annotations", parts["annotations"], bar) as write:
            for answer in _without_paths(read_located(files.annotations, Annotation)):
                _check_prompt_id(answer, known)
                write(known[answer.record.prompt_id].split, answer)
                figures.add_annotation(answer.record, known[answer.record.prompt_id].language)
        if decisions:
            with shards(folder, "decisions", parts["decisions"], bar) as write:
                for decision in _decisions(decisions, known):
                    write(known[decision.record.prompt_id].split, decision)
    return Contents(parts, figures)


def _without_paths(answers: Iterator[Located[Annotation]]) -> Iterator[Located[Annotation]]:
    """Answers with the names of models that are public: without the paths of this machine."""
    found: dict[str, set[str]] = {}
    for answer in answers:
        record, judge = answer.record, answer.record.judge
        for model in {model for model in (record.model, judge and judge.model) if model}:
            shown = without_paths(model)
            paths = found.setdefault(shown, set())
            if paths and model not in paths:
                warn(f"{shown}: several models are published by this name, as paths of this machine are left out")
            paths.add(model)
        judge = judge and judge.model_copy(update={"model": without_paths(judge.model)})
        yield answer._replace(record=record.model_copy(update={"model": without_paths(record.model), "judge": judge}))


def _decisions(decisions: Sequence[Decision], known: dict[str, PromptInfo]) -> Iterator[Located[Decision]]:
    """Decisions on answers to the published prompts, without the paths of this machine."""
    for number, one in enumerate(decisions, 1):
        if one.prompt_id not in known:
            raise UserError(f"decision {one.id!r}: no prompt has the id {one.prompt_id!r}")
        judge = one.judge and one.judge.model_copy(update={"model": without_paths(one.judge.model)})
        yield Located(one.model_copy(update={"judge": judge}), Path("decisions"), number)


def _check_prompt_id(item: Located[Pair] | Located[Annotation], known: dict[str, PromptInfo]) -> None:
    if item.record.prompt_id not in known:
        raise item.error("prompt_id", f"no prompt has the id {item.record.prompt_id!r}")


def _pairs(files: Files) -> Iterator[tuple[Split, Located[Pair]]]:
    yield from (("train", pair) for pair in read_located(files.pairs, Pair))
    if files.test_pairs:
        yield from (("test", pair) for pair in read_located(files.test_pairs, Pair))


def _topics(files: Files) -> Callable[[str], Split]:
    """The split of a topic: that of its pairs; without pairs, the draw of ``build-pairs``, if its options are recorded.

    So no train split of any config has a record of a held-out topic.
    """
    if files.test_pairs is None:
        return lambda topic: "train"
    found: dict[str, Split] = {}
    for split, pair in _pairs(files):
        if found.setdefault(pair.record.topic, split) != split:
            raise pair.error("topic", f"{pair.record.topic!r} has pairs in {files.pairs.name}, too: it is not held out")
    meta = read_meta(meta_file(files.pairs))
    options = meta.options if meta else {}
    test_size, seed = options.get("test_size", 0.0), options.get("seed", 0)
    for name, value, kind in (("test_size", test_size, int | float), ("seed", seed, int)):
        if not isinstance(value, kind):
            raise InputError(f"{value!r} is no number", path=meta_file(files.pairs), field=f"options.{name}")
    return lambda topic: found.get(topic) or split_of(topic, test_size, seed)


@contextmanager
def shards(folder: Path, config: str, part: ConfigSummary, bar: ProgressBar) -> Iterator[Write]:
    """A function that writes the records of a config, into several files where one grows too large."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    opened: dict[Split, tuple[IO[bytes], TableWriter]] = {}
    numbers: Counter[Split] = Counter()
    with ExitStack() as stack:

        def close(split: Split) -> None:
            file, table = opened.pop(split)
            table.close()
            file.close()
            part.bytes[split] = part.bytes.get(split, 0) + table.bytes

        def write(split: Split, item: Located[Any]) -> None:
            if not part.rows:
                part.chat = is_chat(item.record)
            elif part.chat != is_chat(item.record):
                raise item.error("prompt", _mixed_forms(config, part.chat))
            if split not in opened:
                name = f"{split}-{numbers[split]:05}.parquet"
                new: IO[bytes] = stack.enter_context((folder / config / name).open("wb"))
                opened[split] = new, TableWriter(new)
                numbers[split] += 1
            file, table = opened[split]
            table.write(item.record)
            part.rows[split] = part.rows.get(split, 0) + 1
            bar.advance()
            if file.tell() >= SHARD_BYTES:
                close(split)

        yield write
        for split in list(opened):
            close(split)
    _sort_splits(part)


def _sort_splits(part: ConfigSummary) -> None:
    """Train before test, whichever was written first."""
    part.rows = dict(sorted(part.rows.items(), reverse=True))
    if "train" not in part.rows:
        raise UserError("all of it is held out for the test: there is nothing in the train split")


def _mixed_forms(config: str, chat: bool) -> str:
    if config == "prompts":
        here, before = ("a text", "chat messages") if chat else ("chat messages", "texts")
        return (
            f"this one is {here}, those before it are {before}; a column of prompts has one type: write all as chat "
            "messages (a text is one message of the user)"
        )
    here, before = ("plain text (`raw`)", "chat messages") if chat else ("chat messages", "plain text (`raw`)")
    return (
        f"this one is {here}, those before it are {before}; a column of {config} has one type, so the two kinds need "
        "datasets of their own"
    )
