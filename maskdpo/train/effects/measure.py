"""``maskdpo side-effects``: from the answers of two models to general prompts to the file of figures."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskdpo.console import counted, warn
from maskdpo.devices import compute_type, pick_device
from maskdpo.errors import InputError, UserError
from maskdpo.identity import fingerprint
from maskdpo.io import atomic_write, read_answers, read_prompts, refuse_overwriting
from maskdpo.io.sources import GENERAL
from maskdpo.models import load_tokenizer
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Message, Pair, Prompt, Response
from maskdpo.schemas.effects import DIVERGENCE, Effect, Interval, SideEffects
from maskdpo.stage_run import Run
from maskdpo.text.refusals import RULE, refuses
from maskdpo.text.repetition import repeated
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import Encoder, encoder_for
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.effects.card import write_into_card
from maskdpo.train.effects.divergence import Sums, divergences
from maskdpo.train.effects.settings import SideEffectsSettings
from maskdpo.verdicts.estimate import AT_LEAST_0, SHARE, UNBOUNDED, Bounds, Estimate, over_topics, ratio

Floats = NDArray[np.float64]

FIELDS = (
    "answers",
    "empty",
    "refused",
    "grams",
    "repeated",
    "characters",
    "known_end",
    "cut_off",
    "divergence",
    "tokens",
)
FIGURES: Mapping[str, tuple[str, str, Bounds]] = {
    DIVERGENCE: ("divergence", "tokens", AT_LEAST_0),
    "refusals": ("refused", "answers", SHARE),
    "empty answers": ("empty", "answers", SHARE),
    "repeated 4-grams": ("repeated", "grams", SHARE),
    "answers cut off": ("cut_off", "known_end", SHARE),
    "characters / answer": ("characters", "answers", AT_LEAST_0),
}
"""What is divided by what, and the bounds of the figure."""


@dataclass(frozen=True)
class _Answers:
    """The k-th answer of the trained model beside the k-th one of the model before."""

    pair: Pair
    before: Response
    after: Response


def side_effects(settings: SideEffectsSettings) -> SideEffects:
    """Measure, write the file, and put the figures into the card of a model that ``train`` has written.

    Raises:
        UserError: bad input, no prompt with answers of both models, answers of several models in one file, answers that
            were sampled with other settings than those of the other model, or a model that cannot be loaded.
    """
    out, asked = settings.out, settings.prompts or GENERAL
    inputs = {"before": settings.before, "after": settings.after, "prompts": asked}
    refuse_overwriting(out, *inputs.values())
    refuse_replacing(out, "side-effects")
    prompts = read_prompts(asked)
    before, after = (list(read_answers(file, Response, prompts=prompts)) for file in (settings.before, settings.after))
    model = settings.model or _model_of(after, settings.after)
    reference = settings.reference_model or _model_of(before, settings.before)
    answers = list(_side_by_side(prompts, before, after))
    if not answers:
        raise UserError(f"{settings.before} and {settings.after} share no prompt, so there is nothing to compare")
    _refuse_other_sampling(before, after, settings)
    device = pick_device(settings.device)
    config = TrainConfig(
        model=model,
        method="dpo",
        dtype=settings.dtype,
        weights=compute_type(settings.dtype, device),  # two models: wider weights of 8 billion parameters fit no GPU
        tokens_per_batch=settings.tokens_per_batch,
    )
    options = {"model": model, "reference_model": reference, "dtype": settings.dtype, "refusal_rule": RULE}
    options |= {"model_files": fingerprint(model), "reference_files": fingerprint(reference)}
    run = Run(meta_file(out), "side-effects", options, inputs, restart=None)
    pairs = _encoded(answers, encoder_for(config, load_tokenizer(model)))
    moved = divergences(pairs, config, reference, device) if pairs else {}
    run.begin()
    found = SideEffects(
        model=model,
        reference_model=reference,
        prompts=len({one.pair.prompt_id for one in answers}),
        answers=len(answers),
        sampling=after[0].sampling or {},
        refusal_rule=RULE,
        figures=_figures(answers, moved),
    )
    with atomic_write(out) as file:
        file.write(found.model_dump_json(indent=2).encode() + b"\n")
    write_into_card(model, found)
    run.finish({"prompts": found.prompts, "answers": found.answers})
    return found


def _model_of(answers: Sequence[Response], file: Path) -> str:
    """The model that a file of answers names."""
    names = {answer.model for answer in answers}
    if len(names) != 1 or None in names:
        found = "no model" if names <= {None} else "several models"
        raise InputError(f"its answers name {found}; a file with the answers of one model is needed", path=file)
    return str(names.pop())


def _refuse_other_sampling(
    before: Sequence[Response], after: Sequence[Response], settings: SideEffectsSettings
) -> None:
    """Refuse answers whose differences may come from the sampling; answers of elsewhere may not say how they were
    sampled. Other dates in the prompts are only said, because a pipeline may take more than a day."""
    old, new = _sampling(before), _sampling(after)
    other = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)] if old and new else []
    for name in other:
        both = f"{_shown(old.get(name))} -> {_shown(new.get(name))}"
        if name != "prompt_date":
            raise UserError(
                f"the answers of {settings.before} and {settings.after} were sampled with other settings "
                f"({name}: {both}), so that differences may come from these: sample both in the same way"
            )
        if name in old and name in new:
            warn(f"the chat template wrote other dates into the prompts ({both}); the divergence is that at the latter")


def _sampling(answers: Sequence[Response]) -> dict[str, set[str]]:
    """The values of every setting, as JSON."""
    found: dict[str, set[str]] = defaultdict(set)
    for answer in answers:
        for name, value in (answer.sampling or {}).items():
            found[name].add(json.dumps(value, sort_keys=True))
    return dict(found)


def _shown(values: set[str] | None) -> str:
    return " or ".join(sorted(values)) if values else "not said"


def _side_by_side(
    prompts: Mapping[str, Prompt], before: Sequence[Response], after: Sequence[Response]
) -> Iterator[_Answers]:
    waiting: dict[str, list[Response]] = defaultdict(list)
    for answer in before:
        waiting[answer.prompt_id].append(answer)
    for answer in after:
        if waiting[answer.prompt_id]:
            first = waiting[answer.prompt_id].pop(0)
            yield _Answers(_as_pair(prompts[answer.prompt_id], first, answer), first, answer)


def _encoded(answers: Sequence[_Answers], encoder: Encoder) -> list[EncodedPair]:
    """The pairs whose tokens can be compared."""
    found = list(encoder.encode_all([one.pair for one in answers]))
    for reason, count in Counter(one for one in found if isinstance(one, Drop)).most_common():
        warn(f"the divergence leaves out {count} of {counted(len(answers), 'pair')} of answers: {reason.value}")
    return [one for one in found if not isinstance(one, Drop)]


def _as_pair(prompt: Prompt, before: Response, after: Response) -> Pair:
    """Both answers as the trainer reads them: after is the chosen one."""
    sampling = after.sampling or before.sampling or {}
    shown = prompt.prompt
    if isinstance(shown, str) and not sampling.get("raw"):
        shown = [Message(role="user", content=shown)]

    def told(answer: Response) -> str | list[Message]:
        plain = isinstance(shown, str)
        return answer.response if plain else [Message(role="assistant", content=answer.response)]

    return Pair(
        id=f"{after.id}|{before.id}",
        prompt_id=prompt.id,
        topic=prompt.topic_or_id,
        prompt=shown,
        chosen=told(after),
        rejected=told(before),
        chosen_sentences=[],
        rejected_sentences=[],
        chosen_finish_reason=after.finish_reason,
        rejected_finish_reason=before.finish_reason,
        chosen_reasoning=after.reasoning,
        rejected_reasoning=before.reasoning,
        template_options=sampling.get("template_options"),
        prompt_date=sampling.get("prompt_date"),
    )


def _figures(answers: Sequence[_Answers], moved: Sums) -> dict[str, Effect]:
    """Every figure before and after, with intervals over prompts, and the paired difference."""
    sums: dict[str, Floats] = defaultdict(lambda: np.zeros((2, len(FIELDS))))
    for one in answers:
        after, before = moved.get(one.pair.id, np.zeros((2, 2)))
        sums[one.pair.prompt_id] += np.stack([_row(one.before, before), _row(one.after, after)])
    both = np.stack(list(sums.values()))
    return {name: _effect(both, *parts) for name, parts in FIGURES.items()}


def _row(answer: Response, divergence: Floats) -> Floats:
    """[FIELDS] of one answer."""
    counts, text = repeated(answer.response), answer.response
    known = answer.finish_reason is not None
    ends = [known, answer.finish_reason == "length"]
    about = [1, not text.strip(), refuses(text), counts.grams, counts.repeated, len(text)]
    return np.array([*about, *ends, *divergence], dtype=np.float64)


def _effect(both: Floats, above: str, below: str, bounds: Bounds) -> Effect:
    """``both`` is [prompts, before and after, FIELDS]."""
    top, bottom = FIELDS.index(above), FIELDS.index(below)

    def figure(sums: Floats) -> Floats:
        return ratio(sums[..., top], sums[..., bottom])

    def change(sums: Floats) -> Floats:
        return figure(sums[..., 1, :]) - figure(sums[..., 0, :])

    sides = [over_topics(figure, both[:, i], bounds) for i in range(2)]
    difference = over_topics(change, both, UNBOUNDED)
    difference = replace(difference, topics=min(difference.topics, *(side.topics for side in sides)))
    return Effect(before=_interval(sides[0]), after=_interval(sides[1]), difference=_interval(difference))


def _interval(found: Estimate) -> Interval:
    values = {name: getattr(found, name) for name in ("value", "low", "high")}
    return Interval(
        **{name: None if np.isnan(value) else float(value) for name, value in values.items()}, topics=found.topics
    )
