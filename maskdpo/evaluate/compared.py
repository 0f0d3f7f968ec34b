"""What two compared files should share, so that their differences are those of the models."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskdpo.errors import InputError
from maskdpo.run_record import read_meta, record_of
from maskdpo.schemas import Annotation, JudgeInfo

NOT_SAID = "not said"


@dataclass
class Seen:
    """What is noted of the annotations of an input while they are read."""

    judges: set[JudgeInfo | None] = field(default_factory=set)
    samplings: set[str] = field(default_factory=set)
    """How the answers were sampled, as JSON, where they say it."""
    answers: set[bytes] = field(default_factory=set)
    """Hashes of the texts, each with the prompt that it answers."""

    def add(self, annotation: Annotation) -> None:
        self.judges.add(annotation.judge)
        if annotation.sampling is not None:
            self.samplings.add(json.dumps(annotation.sampling, sort_keys=True))
        text = json.dumps([annotation.prompt_id, annotation.response])
        self.answers.add(hashlib.blake2b(text.encode(), digest_size=16).digest())

    def settings(self) -> dict[str, set[str]]:
        """The values of every sampling setting, as JSON."""
        rows: list[dict[str, Any]] = [json.loads(text) for text in self.samplings]
        names = {name for row in rows for name in row}
        return {name: {json.dumps(row[name]) if name in row else NOT_SAID for row in rows} for name in names}


def doubts(before: Seen, after: Seen, files: tuple[Path, ...], other: Path) -> Iterator[str]:
    """Why differences of two inputs may come from something else than the models.

    Args:
        files: those of ``before``.
        other: that of ``after``.
    """
    both = f"{', '.join(map(str, files))} and {other}"
    if before.judges != after.judges:
        yield f"{both} have their labels from different judges; differences may come from the judges"
    if changed := _other_settings(before.settings(), after.settings()):
        yield f"the answers of {both} were sampled with other settings ({changed}); differences may come from these"
    sources = [_prompts_of(file) for file in files]
    for command, what in (("sample", "sampled"), ("annotate", "judged")):
        digests = {source[command] for source in sources if command in source}
        of_other = _prompts_of(other).get(command)
        if digests and of_other is not None and digests != {of_other}:
            yield (
                f"the answers of {both} were {what} with prompts files that differ; differences may come from the "
                "prompts or their references"
            )
    same, total = len(before.answers & after.answers), len(after.answers)
    if before.judges != after.judges:
        return  # two judges may well be compared on the same answers
    if same == total:
        yield f"{both} hold the same answers, with labels of the same judge: is it the right file?"
    elif 2 * same >= total:
        yield (
            f"{same:,} of the {total:,} different answers of {other} are letter by letter those of "
            f"{', '.join(map(str, files))}: is it the right file?"
        )


def _other_settings(before: Mapping[str, set[str]], after: Mapping[str, set[str]]) -> str:
    """The settings that differ, where both inputs say how they were sampled."""
    if not before or not after:
        return ""
    return "; ".join(
        f"{name}: {' or '.join(sorted(old))} -> {' or '.join(sorted(new))}"
        for name in sorted({*before, *after})
        if (old := before.get(name, {NOT_SAID})) != (new := after.get(name, {NOT_SAID}))
    )


def _prompts_of(file: Path) -> dict[str, str]:
    """The SHA-256 of the prompts that the runs behind a file have read, by command, as far as records lead."""
    found: dict[str, str] = {}
    next_file: Path | None = file
    while next_file is not None:
        try:
            record = record_of(next_file)
            meta = read_meta(record) if record else None
        except InputError:  # of another version, or damaged: nothing is known
            return found
        if record is None or meta is None or meta.command in found:
            return found
        found[meta.command] = meta.inputs.get("prompts", "")
        source = next((meta.paths[role] for role in ("annotations", "responses") if role in meta.paths), None)
        next_file = None if source is None else record.parent / source
    return found
