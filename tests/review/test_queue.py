"""The queues: who is in them, with which probability, and that the same seed gives the same one."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_world import JUDGE, NONE, OPEN, RIGHT, WRONG, annotation, towns

from maskdpo.errors import InputError, UserError
from maskdpo.io import write_records
from maskdpo.review.others import Others
from maskdpo.review.queue import Candidate, ReviewQueue, allocate, candidates, certainty, make_queue
from maskdpo.schemas import Annotation, Decision, JudgeInfo, Label, Prompt, Queue, Sentence, Status

PROMPTS, ANNOTATIONS = towns(20)
BY_ID = {prompt.id: prompt for prompt in PROMPTS}
POPULATION = candidates(ANNOTATIONS, BY_ID)
KEYS = [(one.answer_id, one.start) for one in POPULATION]


def queue(name: Queue, population: list[Candidate] = POPULATION, **more: float) -> ReviewQueue:
    told = {"limit": 30, "blind": 0.5, "seed": 0} | more
    return make_queue(name, population, limit=int(told["limit"]), blind=told["blind"], seed=int(told["seed"]))


def keys(made: ReviewQueue) -> list[tuple[str, int]]:
    return [(one.answer_id, one.start) for one in made.chosen]


def sentence(label: Label | None = RIGHT, **more: object) -> Sentence:
    return Sentence.model_validate({"start": 0, "end": 1, "label": label, **more})


def test_headings_are_not_in_it_and_nobody_is_twice() -> None:
    assert len(KEYS) == len(set(KEYS)) == 100
    assert not {start for _, start in KEYS} & {0}, "each answer begins with a heading"
    for name in ("random", "stratified", "uncertain"):
        made = queue(name)
        assert len(keys(made)) == len(set(keys(made))) == 30
        assert made.population == 100


def test_the_seed_decides_alone() -> None:
    for name in ("random", "stratified", "uncertain"):
        assert queue(name) == queue(name)
    assert keys(queue("random")) != keys(queue("random", seed=1))


@pytest.mark.parametrize("name", ["random", "stratified"])
def test_every_sentence_comes_in_as_often_as_its_probability_says(name: Queue) -> None:
    """Over 2,000 seeds; and in the order of the queue no sentence is early more often than another."""
    uneven = [one for one in POPULATION if one.stratum != WRONG.value or int(one.topic[1:]) < 2]
    seeds, seen, first = 2000, Counter(), Counter()
    for seed in range(seeds):
        made = queue(name, uneven, seed=seed, limit=25)
        seen.update(keys(made))
        first.update(keys(made)[:5])
    by_stratum = {(one.answer_id, one.start): one.stratum for one in uneven}
    chance = np.array([made.chances[by_stratum[key]] for key in by_stratum])
    found = np.array([seen[key] / seeds for key in by_stratum])
    assert abs(chance.sum() - 25) < 1e-9
    spread = np.sqrt(chance * (1 - chance) / seeds)
    assert np.all(np.abs(found - chance) <= 4.5 * spread + 1e-12)
    early = np.array([first[key] / seeds for key in by_stratum])
    assert np.all(np.abs(early - chance / 5) <= 4.5 * np.sqrt(chance / 5 / seeds))


def test_stratified_takes_as_many_of_each_label_over_all_topics() -> None:
    made = queue("stratified", limit=40)
    stratum = {(one.answer_id, one.start): one.stratum for one in POPULATION}
    topic = {(one.answer_id, one.start): one.topic for one in POPULATION}
    assert set(Counter(stratum[key] for key in keys(made)).values()) == {10}
    for label in (RIGHT, WRONG, OPEN, NONE):
        whole = Counter(topic[key] for key in KEYS if stratum[key] == label)
        drawn = Counter(topic[key] for key in keys(made) if stratum[key] == label)
        for name, n in whole.items():
            share = n * 10 / sum(whole.values())
            assert abs(drawn[name] - share) < 2, "a topic has its share, up to the two ends of its row"


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=6), st.integers(6, 200))
def test_a_total_is_shared_equally_as_far_as_it_goes(available: dict[str, int], total: int) -> None:
    sizes = allocate(available, total)
    assert sum(sizes.values()) == min(total, sum(available.values()))
    assert all(1 <= sizes[name] <= available[name] for name in available)
    least = min(sizes.values())
    assert (
        all(sizes[name] == available[name] for name in sizes if sizes[name] == least)
        or max(sizes.values()) - least <= 1
    )


def test_a_limit_below_the_number_of_labels_would_leave_some_without_a_chance() -> None:
    with pytest.raises(UserError, match="`limit` must be at least 4"):
        queue("stratified", limit=3)


def test_probabilities_of_joined_sentences() -> None:
    made = queue("random", limit=25)
    one, other, heading = sentence(), sentence(WRONG), sentence(NONE, kind="heading")
    assert made.inclusion([one]) == 0.25
    assert made.inclusion([one, other]) == 1 - 0.75**2
    assert made.inclusion([heading, other]) == 0.25
    assert queue("uncertain").inclusion([one]) is None


def test_the_least_certain_come_first() -> None:
    sure = {(one.answer_id, one.start): one.certainty for one in POPULATION}
    found = [sure[key] for key in keys(queue("uncertain"))]
    assert found == sorted(found) == sorted(value for value in sure.values() if value is not None)[:30]


def test_certainty_is_calibrated_where_it_can_be() -> None:
    torn = {WRONG: 0.4, OPEN: 0.45, RIGHT: 0.15}
    assert certainty(sentence(OPEN, scores=torn, confidence=0.45), JUDGE) == pytest.approx(0.85), "wrong in some way"
    calibrated = JudgeInfo(name="llm", calibration="c" * 16)
    assert certainty(sentence(OPEN, scores=torn, confidence=0.6), calibrated) == 0.6
    assert certainty(sentence(None, status=Status.UNSURE, scores=torn), calibrated) == 0.0
    assert certainty(sentence(None, status=Status.API_ERROR), JUDGE) is None


def test_blind_sentences_are_as_many_as_were_asked_for() -> None:
    for share in (0, 0.1, 0.5, 1):
        assert sum(one.blind for one in queue("random", blind=share).chosen) == round(share * 30)
    halves = [one.blind for one in queue("random").chosen]
    assert 0 < sum(halves[:15]) < 15, "not one after the other"


def test_queues_that_have_nothing_say_so() -> None:
    plain = candidates([annotation(0, [("One.", RIGHT, None)])], BY_ID)
    with pytest.raises(UserError, match="gave no probabilities"):
        queue("uncertain", plain)
    with pytest.raises(UserError, match="no sentence that states something"):
        queue("random", candidates([annotation(0, [("# Title", NONE, None)])], BY_ID))
    unknown = Sentence(start=0, end=4, status=Status.NO_REFERENCE)  # there is nothing to compare it with
    assert candidates([annotation(0, [("One.", RIGHT, None)], sentences=[unknown])], BY_ID) == []
    with pytest.raises(UserError, match="do not differ on any sentence"):
        queue("disagreement", plain)


# --- disagreement ----------------------------------------------------------------------------------

TEXTS = ["Oslo is in Norway.", "It is warm.", "It is nice."]


def judged(*labels: Label | None, **more: object) -> Annotation:
    return annotation(0, [(text, label, 0.9) for text, label in zip(TEXTS, labels, strict=True)], **more)


def decided(start: int, end: int, label: Label, reviewer: str) -> Decision:
    names = {"id": f"{reviewer}{start}", "prompt_id": "p0", "answer_id": "a0", "reviewer": reviewer}
    return Decision(**names, response=" ".join(TEXTS), start=start, end=end, label=label, note=f"{reviewer} knows")


def differing(own: Annotation, *files: Path) -> list[tuple[str, ...] | None]:
    return [one.adjudicates for one in candidates([own], {"p0": Prompt(id="p0", prompt="?")}, Others(files))]


def test_between_two_judges(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    write_records(other, [judged(RIGHT, Label.HALLUCINATION, None)])
    assert differing(judged(RIGHT, WRONG, NONE), other) == [None, None, None], "a hallucination may be of any kind"
    assert differing(judged(WRONG, RIGHT, NONE), other) == [(), (), None]
    assert (
        differing(judged(WRONG, RIGHT, NONE, response="Another text of more than enough characters."), other)
        == [None] * 3
    )


def test_between_reviewers(tmp_path: Path) -> None:
    anna, ben = tmp_path / "anna.jsonl", tmp_path / "ben.jsonl"
    write_records(anna, [decided(0, 18, RIGHT, "anna"), decided(19, 30, WRONG, "anna"), decided(31, 42, NONE, "anna")])
    write_records(ben, [decided(0, 18, RIGHT, "ben"), decided(19, 42, OPEN, "ben")])
    own = judged(WRONG, WRONG, WRONG)
    assert differing(own, anna, ben) == [None, ("anna", "ben"), ("anna", "ben")]
    opinions = Others([anna, ben]).opinions(own, own.sentences[1])
    assert [(one.who, one.label, one.note) for one in opinions] == [
        ("anna", WRONG, "anna knows"),
        ("ben", OPEN, "ben knows"),
    ]
    assert differing(own, anna) == [None] * 3, "one reviewer differs from nobody"


def test_between_reviewers_who_cut_differently(tmp_path: Path) -> None:
    """Their labels agree, but gold has no sentence of them before somebody has settled the cut."""
    anna, ben, own = tmp_path / "anna.jsonl", tmp_path / "ben.jsonl", judged(WRONG, WRONG, WRONG)
    write_records(anna, [decided(0, 18, RIGHT, "anna"), decided(19, 42, WRONG, "anna")])
    write_records(
        ben, [decided(0, 18, RIGHT, "ben"), *(decided(start, start + 11, WRONG, "ben") for start in (19, 31))]
    )
    assert differing(own, anna, ben) == [None, ("anna", "ben"), ("anna", "ben")]
    opinions = Others([anna, ben]).opinions(own, own.sentences[1])
    assert [(one.who, one.text) for one in opinions] == [("anna", "It is warm. It is nice."), ("ben", None)]
    write_records(anna, [decided(0, 18, RIGHT, "anna"), decided(19, 21, RIGHT, "anna"), decided(22, 30, WRONG, "anna")])
    assert differing(own, anna, ben) == [None, ("anna", "ben"), None], "who has split a sentence"
    assert differing(own, anna) == [None] * 3, "and who gave the halves different labels differs from nobody"


def test_what_a_named_person_has_settled_is_not_asked_again(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in ("anna", "ben", "eva")]
    own = judged(WRONG, WRONG, WRONG)

    def settled(start: int, end: int, label: Label | None = OPEN) -> Decision:
        act = {} if label else {"act": "skip", "label": None}
        return decided(start, end, OPEN, "eva").model_copy(update={"adjudicates": ["anna", "ben"], **act})

    for file, label in zip(files[:2], (RIGHT, WRONG), strict=True):
        write_records(file, [decided(*span, label, file.stem) for span in ((0, 18), (19, 30), (31, 42))])
    write_records(files[2], [settled(0, 18), settled(19, 21)])
    assert differing(own, *files[:2]) == [("anna", "ben")] * 3
    assert differing(own, *files) == [None, ("anna", "ben"), ("anna", "ben")], "the rest of a sentence is still open"
    write_records(files[2], [settled(0, 18), settled(19, 42)])
    assert differing(own, *files) == [None] * 3
    write_records(files[2], [settled(0, 18, None), settled(19, 42)])
    assert differing(own, *files) == [("anna", "ben"), None, None], "who skips a sentence does not settle it"
    population = candidates([own], {"p0": Prompt(id="p0", prompt="?")}, Others(files[:1]))
    with pytest.raises(UserError, match="nothing to decide"):
        make_queue("disagreement", population, limit=5, blind=0, seed=0)


def test_files_of_two_kinds_or_of_another_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jsonl", "d.jsonl", "p.jsonl")]
    for path, records in zip(paths, ([judged(*[RIGHT] * 3)], [decided(0, 18, RIGHT, "anna")], PROMPTS), strict=True):
        write_records(path, records)
    with pytest.raises(UserError, match="must be files of one kind"):
        Others(paths[:2])
    with pytest.raises(InputError, match="holds neither annotations nor decisions"):
        Others(paths[2:])
