"""Labelled sentences out of annotation files: what a judge is trained on."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskdpo.errors import InputError, UserError
from maskdpo.io import read_answers, read_prompts
from maskdpo.schemas import WITHOUT_CLAIM, Annotation, Label, Prompt, Scores, Sentence, Status


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled sentence, with everything that a judge may see of it."""

    id: str
    prompt: Prompt
    topic: str
    """What is held out together (``Prompt.shared_topic``)."""
    answer: str
    """The whole answer."""
    span: tuple[int, int]
    """Where the sentence stands in it."""
    sentence: str
    """Its text; of a changed sentence the new one."""
    label: Label
    scores: Scores | None = None
    """Probabilities to learn instead of the label."""
    weight: float = 1.0
    """Factor on the loss."""
    earlier: tuple[int, ...] = ()
    """Where the sentences before it begin."""
    changed: str | None = None
    """What was changed in a right sentence to make this wrong one (``augment``)."""

    @property
    def answer_id(self) -> str:
        return self.id.rpartition("#")[0]


@dataclass
class FileCounts:
    """What became of the sentences of one file."""

    file: str
    weight: float
    examples: int = 0
    with_scores: int = 0
    labels: Counter[Label] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """By reason."""


def read_examples(
    labelled: Sequence[Path], prompts: Sequence[Path], weights: Sequence[float] = ()
) -> tuple[list[Example], list[FileCounts]]:
    """All sentences with a verdict, of all files.

    Args:
        prompts: one file for all, or one for each of ``labelled``.
        weights: one for each of ``labelled``; none: 1.

    Raises:
        UserError: a file is not valid, a prompt is missing, or no sentence is left.
    """
    known: dict[Path, dict[str, Prompt]] = {file: read_prompts(file) for file in dict.fromkeys(prompts)}
    found: list[Example] = []
    counts: list[FileCounts] = []
    for i, file in enumerate(labelled):
        count = FileCounts(file.name, weights[i] if weights else 1.0)
        prefix = f"{i}:" if len(labelled) > 1 else ""
        asked = known[prompts[i] if len(prompts) > 1 else prompts[0]]
        found += _of_file(file, asked, count, prefix)
        counts.append(count)
    if not found:
        reasons = sum((count.left_out for count in counts), Counter[str]())
        said = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common()) or "they hold no sentences"
        files = ", ".join(str(file) for file in labelled)
        raise UserError(f"{files}: no labelled sentence to train on: {said}")
    return found, counts


def _of_file(file: Path, prompts: Mapping[str, Prompt], count: FileCounts, prefix: str) -> Iterator[Example]:
    topics: dict[str, str] = {}
    for annotation in read_answers(file, Annotation, dict(prompts)):
        prompt = prompts[annotation.prompt_id]
        topic = topics.setdefault(prompt.id, prompt.shared_topic)
        starts = [sentence.start for sentence in annotation.sentences if sentence.kind not in WITHOUT_CLAIM]
        for i, sentence in enumerate(annotation.sentences):
            if reason := _left_out(sentence, prompt):
                count.left_out[reason] += 1
                continue
            assert sentence.label is not None
            count.examples += 1
            count.labels[sentence.label] += 1
            count.with_scores += sentence.scores is not None
            yield Example(
                id=f"{prefix}{annotation.id}#{i}",
                prompt=prompt,
                topic=topic,
                answer=annotation.response,
                span=(sentence.start, sentence.end),
                sentence=annotation.response[sentence.start : sentence.end],
                label=sentence.label,
                scores=sentence.scores,
                weight=count.weight,
                earlier=tuple(start for start in starts if start < sentence.start),
            )


def _left_out(sentence: Sentence, prompt: Prompt) -> str | None:
    """Why a sentence is not trained on."""
    if sentence.kind in WITHOUT_CLAIM:
        return f"in a {sentence.kind.value} block"
    if sentence.status is Status.UNSURE:
        return "unsure"
    if sentence.label is None:
        return f"without a verdict ({sentence.status.value})"
    if not any(passage.strip() for passage in prompt.passages):
        return "without a reference"
    return None


def split_topics(
    examples: Sequence[Example], share: float, seed: int, most: int | None = None
) -> tuple[list[Example], list[Example]]:
    """(to train on, held out): a share of the topics, at least one, chosen by a hash of seed and topic.

    Args:
        most: no further topic is held out once so many sentences are.

    Raises:
        UserError: there is a share to hold out, and only one topic.
    """
    topics = sorted({example.topic for example in examples}, key=lambda topic: _rank(topic, seed))
    if not share:
        return list(examples), []
    if len(topics) < 2:
        raise UserError(
            "all sentences are about one topic, so that none can be held out: label sentences about other topics, or "
            "`heldout` 0 for training without early stopping and calibration"
        )
    sizes = Counter(example.topic for example in examples)
    held, count = set[str](), 0
    for topic in topics[: max(1, round(share * len(topics)))]:
        if most is None or count < most:
            held.add(topic)
            count += sizes[topic]
    return [e for e in examples if e.topic not in held], [e for e in examples if e.topic in held]


def _rank(topic: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{topic}".encode(errors="replace")).digest()


def read_gold(file: Path, prompts: Sequence[Path]) -> list[Example]:
    """The labelled sentences of a gold file, with the prompts of any of the given files.

    Raises:
        InputError: a prompt is in none of them, or no sentence is left.
    """
    known: dict[str, Prompt] = {}
    for one in prompts:
        known |= read_prompts(one)
    found = list(_of_file(file, known, FileCounts(file.name, 1.0), "gold:"))
    if not found:
        raise InputError("holds no labelled sentence with a reference", path=file)
    return found
