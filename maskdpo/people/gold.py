"""``maskdpo gold``: the labels that people agree on, as annotations without a judge."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from maskdpo.errors import UserError
from maskdpo.io import refuse_overwriting, write_records
from maskdpo.people.sentences import Decided, by_answer, decided_sentences
from maskdpo.people.settings import GoldSettings
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Annotation, Sentence
from maskdpo.stage_run import Run


@dataclass
class GoldStats:
    """What became of the decided sentences."""

    answers: int = 0
    sentences: int = 0
    """With a gold label."""
    several_reviewers: int = 0
    """Of ``sentences``: those that more than one person has labelled."""
    adjudicated: int = 0
    """Of ``sentences``: those that a named person has settled."""
    drawn: int = 0
    """Of ``sentences``: those with the probability with which they were drawn."""
    ties: int = 0
    """Left out: as many reviewers say one thing as another."""
    cut_differently: int = 0
    """Left out: reviewers have cut the text in different ways, and no way has more of them."""
    skipped: int = 0
    """Left out: nobody gave a label."""
    other_draw: int = 0
    """Of ``sentences``: drawn by another queue than most, so that their probability is not kept."""
    chosen: int = 0
    """Of ``sentences``: chosen by a queue and never drawn."""
    drawn_left_out: int = 0
    """Drawn at random, and left out because people differ."""


def make_gold(settings: GoldSettings) -> GoldStats:
    """Write the labels that people agree on to ``settings.out``.

    Raises:
        UserError: bad input, or no sentence with a label that people agree on.
    """
    refuse_overwriting(settings.out, *settings.decisions)
    refuse_replacing(settings.out, "gold", only_own=True)
    stats = GoldStats()
    records = gold_records(decided_sentences(settings.decisions), stats)
    if not records:
        raise UserError(
            f"people agree on no sentence: {stats.ties} ties, {stats.cut_differently} cut differently. Settle them "
            "with `maskdpo review --queue disagreement`"
        )
    run = Run(meta_file(settings.out), "gold", {}, decision_roles(settings.decisions), restart=None)
    run.begin()
    write_records(settings.out, records)
    run.finish(asdict(stats))
    return stats


def decision_roles(files: Iterable[Path]) -> dict[str, Path]:
    """The inputs of a run by role: ``decisions``, ``decisions 2`` ..."""
    return {"decisions" if i == 1 else f"decisions {i}": file for i, file in enumerate(files, 1)}


def gold_records(sentences: Iterable[Decided], stats: GoldStats | None = None) -> list[Annotation]:
    """The answers with a gold label, with these sentences only, in the order in which they were first decided.

    ``Sentence.inclusion`` is that of the queue that drew most of the sentences at random: two draws with different
    rules have no common probability.
    """
    stats = stats or GoldStats()
    answers = {key: list(_uncontested(group, stats)) for key, group in by_answer(sentences).items()}
    queues = Counter(queue for group in answers.values() for one in group for queue in one.draws)
    queue = queues.most_common(1)[0][0] if queues else None
    records = []
    for group in answers.values():
        labelled = [_gold_sentence(one, queue, stats) for one in group]
        if labelled:
            first = group[0].first
            records.append(
                Annotation(id=first.answer_id, prompt_id=first.prompt_id, response=first.response, sentences=labelled)
            )
    stats.answers = len(records)
    return records


def _uncontested(group: list[Decided], stats: GoldStats) -> Iterator[Decided]:
    """The sentences of one answer with a label; where they overlap, those that most people have decided."""
    for one in group:
        rivals = [other for other in group if other is not one and one.overlaps(other)]
        if not one.labels and one.settled is None:
            stats.skipped += 1
        elif any(_support(other) >= _support(one) for other in rivals):
            stats.cut_differently += 1
            stats.drawn_left_out += bool(one.draws)
        elif one.label is None:
            stats.ties += 1
            stats.drawn_left_out += bool(one.draws)
        else:
            yield one


def _support(one: Decided) -> tuple[bool, int]:
    return one.settled is not None, len(one.labels)


def _gold_sentence(one: Decided, queue: str | None, stats: GoldStats) -> Sentence:
    drawn = one.draws
    inclusion = drawn.get(queue) if queue else None
    stats.sentences += 1
    stats.several_reviewers += len(one.labels) > 1
    stats.adjudicated += one.settled is not None
    stats.drawn += inclusion is not None
    stats.other_draw += inclusion is None and bool(drawn)
    stats.chosen += one.chosen and not drawn
    return Sentence(start=one.first.start, end=one.first.end, label=one.label, kind=one.first.kind, inclusion=inclusion)
