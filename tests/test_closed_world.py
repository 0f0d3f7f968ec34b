"""The closed-world benchmark: its judge is exact, its worlds are what they claim, its cells are computed once."""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # another package called benchmarks is among the installed ones

from benchmarks.closed_world import spans, tables
from benchmarks.closed_world.cells import Cell, Folder, Pool, Setting, make_base, make_pool, once, run_cell
from benchmarks.closed_world.grammar import ATTRIBUTES, NO_FACT, VALUES, parse, sentence_spans, vocabulary
from benchmarks.closed_world.judge import (
    MALFORMED,
    MISCONCEPTION,
    OTHER,
    REPEATED,
    ExactJudge,
    SentenceSplitter,
    exact_verdicts,
)
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.plan import Choice, Plan, best_rate, choose, equal_rate, final_cells
from benchmarks.closed_world.world import (
    RATES,
    Entity,
    Fact,
    make_group_prompts,
    make_prompt,
    make_prompts,
    make_world,
    write_text,
    write_texts,
)
from maskdpo.annotate.judge import Task
from maskdpo.schemas import SIDES, Label, Pair, PairSentence, Response, Side
from maskdpo.train.data.weights import METHODS as METHOD_WEIGHTS

TRUE, BELIEVED, ELSE = VALUES["river"][:3]
ENTITY = Entity("Bodoga", {a: Fact(VALUES[a][0], VALUES[a][1], False) for a in ATTRIBUTES}, gossip=False)


def judged(*sentences: str) -> list[tuple[Label | None, str | None]]:
    return [(v.label, v.reason) for v in exact_verdicts({None: ENTITY}, list(sentences))]


def test_the_judge_knows_true_false_and_empty_sentences() -> None:
    assert judged(f"Archives say the river is {TRUE} .") == [(Label.NO_HALLUCINATION, None)]
    assert judged(f"Ballads note the river seems {BELIEVED} .") == [(Label.CONTRADICTORY, MISCONCEPTION)]
    assert judged(f"Ballads note the river seems {ELSE} .") == [(Label.CONTRADICTORY, OTHER)]
    assert judged(NO_FACT[1]) == [(Label.NO_FACT, None)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Archives say the river is .",
        f"Archives say the river is {TRUE}",  # cut off
        f"Archives say the home is {TRUE} .",  # a value of another attribute
        f"Archives Archives the river is {TRUE} .",
        f"Archives say the river is {TRUE} {TRUE} .",
        f"say Archives the river is {TRUE} .",
        f"Archives say the river seems {TRUE} .",  # the link of another source
        ".",
        "Much been lost .",
    ],
)
def test_malformed_sentences_are_wrong(sentence: str) -> None:
    assert judged(sentence) == [(Label.HALLUCINATION, MALFORMED)]


def test_what_was_said_already_is_wrong_even_if_true() -> None:
    true, false = f"Archives say the river is {TRUE} .", f"Ballads tell the river seems {BELIEVED} ."
    assert [reason for _, reason in judged(true, true)] == [None, REPEATED]
    assert [reason for _, reason in judged(false, NO_FACT[0], true)] == [MISCONCEPTION, None, REPEATED]
    assert [label for label, _ in judged(NO_FACT[0], NO_FACT[0])] == [Label.NO_FACT, Label.NO_FACT]


def test_of_several_entities_each_sentence_names_its_own() -> None:
    other = Entity("Tatutu", {a: Fact(VALUES[a][1], VALUES[a][0], False) for a in ATTRIBUTES}, gossip=False)
    asked: dict[str | None, Entity] = {entity.name: entity for entity in (ENTITY, other)}
    of = "Archives say the river of {} is {} ."
    answer = [
        of.format("Bodoga", TRUE),
        of.format("Tatutu", TRUE),
        of.format("Tatutu", BELIEVED),
        of.format("Gagaga", TRUE),
        f"Archives say the river is {TRUE} .",
        NO_FACT[0],
    ]
    reasons = [verdict.reason for verdict in exact_verdicts(asked, answer)]
    assert reasons == [None, MISCONCEPTION, REPEATED, MALFORMED, MALFORMED, None]
    assert exact_verdicts({None: ENTITY}, answer[:1])[0].reason == MALFORMED


def test_sentences_are_split_at_full_stops_and_nothing_is_lost() -> None:
    text = f" Archives say the river is {TRUE} . Much has been lost . . Ledgers note the"
    pieces = [text[start:end] for start, end in sentence_spans(text)]
    assert pieces == [f"Archives say the river is {TRUE} .", "Much has been lost .", ".", "Ledgers note the"]
    assert sentence_spans("") == [] and sentence_spans("  ") == []


def test_every_text_of_a_world_is_well_formed_and_in_the_vocabulary() -> None:
    world, rng = make_world(5, 30, 10), random.Random(0)
    words = {*vocabulary(), *world.entities}
    for entity in world.entities.values():
        focus = rng.choice(ATTRIBUTES)
        text = write_text(entity, focus, rng)
        sentences = [text[start:end] for start, end in sentence_spans(text)]
        first = parse(sentences[0])
        assert first is not None and first.attribute == focus
        reasons = {verdict.reason for verdict in exact_verdicts({None: entity}, sentences)}
        assert reasons <= {None, MISCONCEPTION, OTHER}
        assert set(text.split()) | set(make_prompt(world, entity.name, focus).question.split()) <= words


def test_texts_about_several_entities_are_well_formed_and_ask_of_all_equally() -> None:
    world = make_world(5, 30, 9, sizes=(1, 4))
    prompts = make_group_prompts(world, world.aligned_names, 4, 4, random.Random(0))
    assert len({prompt.id for prompt in prompts}) == len(prompts) == 20
    asked = Counter(name for prompt in prompts for name in prompt.topic_or_id.split())
    assert set(asked) <= set(world.aligned_names) and max(asked.values()) <= 4
    for prompt in prompts:
        entities = world.asked(prompt.topic_or_id)
        assert set(prompt.question.split()) <= {*vocabulary(), *world.entities}
        text = write_texts(list(entities.values()), random.Random(prompt.id))
        sentences = [text[start:end] for start, end in sentence_spans(text)]
        assert 4 * 3 <= len(sentences) <= 4 * 10
        assert {verdict.reason for verdict in exact_verdicts(entities, sentences)} <= {None, MISCONCEPTION, OTHER}


def test_sources_are_as_right_as_the_rates_say() -> None:
    world, rng = make_world(6, 200, 50), random.Random(1)
    said: dict[tuple[str, bool], list[tuple[bool, bool]]] = {key: [] for key in RATES}
    for entity in [e for e in world.entities.values() for _ in range(20)]:
        text = write_text(entity, None, rng)
        for claim in filter(None, (parse(text[start:end]) for start, end in sentence_spans(text))):
            fact = entity.facts[claim.attribute]
            said[claim.source, fact.misled].append((claim.value == fact.truth, claim.value == fact.misconception))
    for key, (truth, misconception) in RATES.items():
        shares = [sum(column) / len(said[key]) for column in zip(*said[key], strict=True)]
        assert shares == pytest.approx([truth, misconception], abs=0.03)
    misled = [fact.misled for entity in world.entities.values() for fact in entity.facts.values()]
    assert sum(misled) / len(misled) == pytest.approx(0.4, abs=0.04)


def test_a_world_follows_from_its_seed_and_holds_entities_out() -> None:
    assert make_world(3, 20, 5) == make_world(3, 20, 5) != make_world(4, 20, 5)
    world = make_world(3, 20, 5)
    assert len(world.aligned_names) == 15 and len(world.held_out_names) == 5
    assert not set(world.aligned_names) & set(world.held_out_names)
    prompts = make_prompts(world, world.aligned_names, 3, random.Random(0))
    assert len({prompt.id for prompt in prompts}) == 45


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noise_turns_labels_at_its_rate_and_its_confidence_is_calibrated(noise: float) -> None:
    world = make_world(8, 300, 50)
    tasks = []
    for name, entity in world.entities.items():
        text = write_text(entity, None, random.Random(name))
        spans_ = SentenceSplitter().split(text, "en")
        tasks.append(Task(make_prompt(world, name, None), Response(id=name, prompt_id=name, response=text), spans_))
    exact, noisy = ([v for _, vs in ExactJudge(world, n).judge(tasks) for v in vs] for n in (0.0, noise))
    facts = [(a, b) for a, b in zip(exact, noisy, strict=True) if a.label is not Label.NO_FACT]
    turned = sum(a.label != b.label for a, b in facts) / len(facts)
    assert turned == pytest.approx(noise, abs=0.04)
    sure = [b.confidence or 0 for _, b in facts]
    assert 1 - sum(sure) / len(sure) == pytest.approx(turned, abs=0.04)
    assert min(sure) >= 0.5
    again = [v for _, vs in ExactJudge(world, noise).judge(tasks) for v in vs]
    assert again == noisy


def example_pair() -> Pair:
    texts = {
        "chosen": [f"Archives say the river is {TRUE} .", f"Ballads say the home seems {VALUES['home'][1]} ."],
        "rejected": [f"Ballads tell the river seems {BELIEVED} .", f"Ledgers say the song is {VALUES['song'][0]} ."],
    }
    right, wrong = Label.NO_HALLUCINATION, Label.CONTRADICTORY
    labels = {"chosen": (right, wrong), "rejected": (wrong, right)}
    sides = {side: " " + " ".join(sentences) for side, sentences in texts.items()}
    sentences = {
        f"{side}_sentences": [
            PairSentence(start=start, end=end, label=label)
            for (start, end), label in zip(sentence_spans(text), labels[side], strict=True)
        ]
        for side, text in sides.items()
    }
    return Pair(id="p", prompt_id="q", topic="t", prompt="About Bodoga :", **sides, **sentences)


def labelled(pair: Pair, side: str) -> list[tuple[str, Label | None]]:
    """The words of a side that have a label."""
    text = pair.chosen if side == "chosen" else pair.rejected
    spans_ = pair.chosen_sentences if side == "chosen" else pair.rejected_sentences
    assert isinstance(text, str)
    return [(text[s.start : s.end], s.label) for s in spans_ if s.label]


def test_finer_spans() -> None:
    pair = example_pair()
    right, wrong = Label.NO_HALLUCINATION, Label.CONTRADICTORY
    whole = f"Archives say the river is {TRUE} ."
    assert labelled(spans.wrong_values(pair), "chosen") == [(whole, right), (VALUES["home"][1], wrong)]
    assert labelled(spans.wrong_values(pair), "rejected")[0] == (BELIEVED, wrong)
    assert labelled(spans.values(pair), "chosen")[0] == (TRUE, right)
    content = labelled(spans.content(pair), "rejected")
    assert content[:4] == [("Ballads", wrong), ("river", wrong), ("seems", wrong), (BELIEVED, wrong)]
    assert labelled(spans.matched(pair), "chosen") == [(whole, right)]
    assert labelled(spans.matched(pair), "rejected") == [(f"Ballads tell the river seems {BELIEVED} .", wrong)]
    half = spans.half(pair)
    assert [s.confidence for s in half.chosen_sentences + half.rejected_sentences] == [1, 0.5, 1, 0.5]
    assert {s.label for s in half.chosen_sentences} == {right}


def test_balanced_sides_weigh_the_same_and_margins_count_what_trains() -> None:
    pair = example_pair()
    text, end = f"{pair.chosen} {NO_FACT[0]}", len(str(pair.chosen))
    filler = PairSentence(start=end + 1, end=end + 1 + len(NO_FACT[0]), label=Label.NO_FACT)
    pair = pair.model_copy(update={"chosen": text, "chosen_sentences": [*pair.chosen_sentences, filler]})

    def weights(pair: Pair, side: Side) -> list[tuple[float, int]]:
        found = [s for s in pair.sentences(side) if METHOD_WEIGHTS["mask-dpo"].row(side)[s.label]]
        return [(s.confidence or 0, len(pair.response(side)[s.start : s.end].split())) for s in found]

    balanced = {side: weights(spans.balanced(pair), side) for side in SIDES}
    assert {side: len(found) for side, found in balanced.items()} == {"chosen": 2, "rejected": 1}
    totals = [[weight * words for weight, words in balanced[side]] for side in SIDES]
    assert sum(totals[0]) == pytest.approx(sum(totals[1])) and totals[0][0] == pytest.approx(totals[0][1])
    assert len(weights(spans.strictly_balanced(pair), "chosen")) == 1
    margins = spans.sentence_margins(pair)
    assert margins.chosen_score == 3 and margins.rejected_score == 0
    found = mix([pair])
    assert found["wrong_of_chosen"] == pytest.approx(1 / 3) and found["right_of_rejected"] == 0.5
    assert found["tokens_left_out"] == pytest.approx((7 + 7) / (7 + 7 + 5 + 7 + 7))


def curve(*rows: tuple[float, float, float]) -> list[Figures]:
    return [{"right_of_all": right, "sentences": length, "kl": kl} for right, length, kl in rows]


def test_the_best_rate_keeps_the_length() -> None:
    figures = curve((0.5, 4.0, 0.1), (0.6, 4.2, 0.5), (0.9, 1.0, 3.0))
    assert best_rate((1e-6, 1e-5, 1e-4), figures, 4.0) == 1e-5
    assert best_rate((1e-6, 1e-5, 1e-4), figures, 40.0) == 1e-6


def test_the_equal_rate_reaches_the_target() -> None:
    grid = (1e-6, 1e-5, 1e-4)
    assert equal_rate(grid, (0.01, 0.1, 1.0), 0.1) == pytest.approx(1e-5)
    assert equal_rate(grid, (0.01, 0.1, 1.0), 10**-0.5) == pytest.approx(10**-4.5, rel=0.01)
    assert equal_rate(grid, (-0.01, 0.1, 1.0), 0.05) < 1e-5
    assert equal_rate(grid, (-0.02, -0.01, 1.0), -0.005) < 1e-4
    assert equal_rate(grid, (0.2, 0.3, 1.0), 0.1) == 1e-6 and equal_rate(grid, (0.2, 0.3, 1.0), 9.0) == 1e-4


def test_a_plan_chooses_on_development_worlds_and_runs_fresh_ones_once() -> None:
    plan = Plan(("dpo", "mask-dpo", "soft"), worlds=(1, 2), development=(9,), grid=(1e-5, 1e-4), questions=(1, 3))
    results = {}
    for cell in plan.grid_cells():
        high, dpo = cell.lr > 5e-5, cell.method == "dpo"
        results[cell] = {
            "right_of_all": 0.6 if high == dpo else 0.5,
            "sentences": 4.0,
            "kl": cell.lr * (1e4 if dpo else 1e5),
        }
    choices = choose(plan, results, [{"sentences": 4.0}])
    assert choices == {"dpo": Choice(1e-4, 1e-4), "mask-dpo": Choice(1e-5, 1e-5)}
    cells = final_cells(plan, choices)
    assert len(cells) == len(set(cells)) == 2 * (2 + 3 * 3 + 2)
    assert {cell.pool.world for cell in cells} == {1, 2}
    assert all(cell.pool.noise for cell in cells if cell.method == "soft")


def test_intervals_are_those_of_student() -> None:
    mean, half = tables.interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.30 / 3**0.5)
    assert tables.show([0.1, 0.11, 0.12], "+").endswith("*") and not tables.show([0.1, -0.1, 0.12], "+").endswith("*")


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    calls = []
    for _ in range(2):
        found = once(tmp_path / "cells" / "a.json", lambda: calls.append(1) or {"x": 1.0})  # type: ignore[func-returns-value]
    assert len(calls) == 1 and found["x"] == 1.0 and "cpu_seconds" in found


@pytest.mark.slow
def test_cells_run_from_end_to_end_and_are_skipped_when_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Setting(8, 3, pretrain_steps=80, samples=6, epochs=1, eval_samples=2))
    make_base(folder, 1)
    make_pool(folder, Pool(1))
    cell = Cell(Pool(1), "mask-dpo", 1e-3)
    found = run_cell(folder, cell)
    assert found["pairs"] > 0 and found["kl"] != 0
    assert found["right"] + found["wrong"] + found["no_fact"] == pytest.approx(found["sentences"])
    assert not (tmp_path / "work" / cell.name).exists()
    file = folder.result(cell.name)
    file.write_text(json.dumps(found | {"right": -1.0}))
    assert run_cell(folder, cell)["right"] == -1.0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    make_base(folder, 1)
    make_pool(folder, Pool(1))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == before


def test_every_method_can_be_trained_with() -> None:
    from maskdpo.train.config import TrainConfig

    for method in METHODS.values():
        TrainConfig(model="m", **method.settings)
