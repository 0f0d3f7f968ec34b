"""The mix of pairs: figures of pairs made by hand, the nearest cell of the map, and what the commands print of both."""

from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code
from pydantic import ValidationError

from maskdpo.io import write_records
from maskdpo.schemas import SIDES, TRAINED, Annotation, Label, Pair, PairSentence, Prompt, Sentence
from maskdpo.train.data.weights import METHODS
from maskdpo.verdicts import evidence_map
from maskdpo.verdicts.evidence_map import (
    CELLS,
    DOUBLING,
    FAR,
    Difference,
    EvidenceCell,
    Gain,
    distance,
    nearest_cell,
    read_map,
)
from maskdpo.verdicts.mix import Mix, mix_of

LABELS = {"r": Label.NO_HALLUCINATION, "w": Label.CONTRADICTORY, "u": Label.UNVERIFIABLE, "n": Label.NO_FACT, "?": None}


def side(labels: str) -> tuple[str, list[PairSentence]]:
    """An answer of one sentence a letter, each of ten characters but for the blank, behind a marker of two."""
    text = "- 12345 6789. " * len(labels)
    return text, [PairSentence(start=14 * i + 2, end=14 * i + 13, label=LABELS[name]) for i, name in enumerate(labels)]


def pair(chosen: str, rejected: str, name: str = "p") -> Pair:
    (good, good_spans), (bad, bad_spans) = side(chosen), side(rejected)
    return Pair(
        id=name, prompt_id="q", topic="t", prompt="Tell me.", chosen=good, rejected=bad,
        chosen_sentences=good_spans, rejected_sentences=bad_spans,
    )  # fmt: skip


def mix(wrong: float, right: float, sentences: float) -> Mix:
    return Mix(wrong_of_chosen=wrong, right_of_rejected=right, left_out=0.4, margin=0.3, sentences_per_answer=sentences)


def difference(mean: float, half: float) -> Difference:
    return Difference(mean=mean, half=half)


def cell(name: str, place: Mix, verdict: Any = "undecided") -> EvidenceCell:
    gains: dict[Any, Gain] = {
        "mask-dpo": Gain(sampled=difference(-0.014, 0.006), greedy=difference(0.02, 0.03), verdict=verdict),
        "strict": Gain(sampled=difference(0.002, 0.004), greedy=difference(0.01, 0.02), verdict="undecided"),
    }
    return EvidenceCell(name=name, worlds=5, mix=place, gains=gains)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has the program know other cells."""

    def ship(*cells: EvidenceCell) -> None:
        monkeypatch.setattr(evidence_map, "FILE", tmp_path / "map.json")
        (tmp_path / "map.json").write_bytes(CELLS.dump_json(list(cells)))

    return ship


def test_the_figures_of_pairs_are_those_counted_by_hand() -> None:
    found = mix_of(iter([pair("rrrw", "rwwu"), pair("rn", "wwnw", "p2")]))
    assert found.wrong_of_chosen == 1 / 6
    assert found.right_of_rejected == 1 / 8
    assert found.margin == pytest.approx(((3 / 4 - 1 / 4) + (1 / 2 - 0)) / 2)
    assert found.sentences_per_answer == 14 / 4
    # sentences have 10 characters, the markers before them 1: what stands outside sentences trains where no fact does
    left_out = (10 + (10 + 4)) + (0 + (10 + 4))
    assert found.left_out == left_out / (14 * 11)


def test_sentences_without_a_verdict_count_only_as_text_that_is_left_out() -> None:
    found = mix_of([pair("rw?", "w?"), pair("??", "w", "p2")])
    assert (found.wrong_of_chosen, found.right_of_rejected, found.margin) == (1 / 2, 0, 1 / 2)
    assert found.sentences_per_answer == 4 / 4
    assert found.left_out == (20 + (10 + 2) + 20 + 1) / (8 * 11)


def test_words_may_be_counted_in_place_of_characters() -> None:
    assert mix_of([pair("rw", "w")], size=lambda text: len(text.split())).left_out == (2 + 1) / 9


def test_what_is_undefined_is_none() -> None:
    empty = {"chosen": "", "rejected": "", "chosen_sentences": [], "rejected_sentences": []}
    unlabelled = pair("r", "w").model_copy(update={"chosen_sentences": [], "rejected_sentences": []})
    for found in (mix_of([]), mix_of([pair("r", "w").model_copy(update=empty)])):
        assert set(found.model_dump().values()) <= {None, 0.0} and found.wrong_of_chosen is None
        assert nearest_cell(found, [cell("a", mix(0, 0, 1))]) is None
    assert mix_of([unlabelled]).left_out == 0.5  # as text outside sentences


def test_the_masks_are_those_of_the_method() -> None:
    for name in SIDES:
        assert TRAINED[name] == {label for label, weight in METHODS["mask-dpo"].row(name).items() if weight}


def test_a_distance_is_over_two_shares_and_doublings_of_the_sentences() -> None:
    assert distance(mix(0.2, 0.1, 4), mix(0.5, 0.5, 4)) == pytest.approx(0.5)
    assert distance(mix(0.2, 0.1, 4), mix(0.2, 0.1, 16)) == pytest.approx(2 * DOUBLING)
    assert distance(mix(0.2, 0.1, 4), mix_of([])) is None


def test_the_nearest_cell_is_named_unless_all_are_far() -> None:
    cells = [cell("short", mix(0.22, 0.08, 4)), cell("long", mix(0.22, 0.08, 16)), cell("mixed", mix(0.5, 0.3, 8))]
    for wanted, place in (("short", mix(0.2, 0.1, 5)), ("long", mix(0.2, 0.1, 20)), ("mixed", mix(0.45, 0.35, 5))):
        found = nearest_cell(place, cells)
        assert found is not None and found.name == wanted
    assert nearest_cell(mix(0.22 + FAR - 0.01, 0.08, 4), cells[:1]) is cells[0]
    assert nearest_cell(mix(0.22 + FAR + 0.01, 0.08, 4), cells[:1]) is None
    assert nearest_cell(mix(0.2, 0.1, 4), []) is None


def test_a_cell_without_a_place_is_no_cell() -> None:
    with pytest.raises(ValidationError, match="must be numbers"):
        cell("a", mix_of([]))


def test_the_shipped_map_is_valid() -> None:
    cells = read_map()
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(set(cell.gains) == {"mask-dpo", "strict"} for cell in cells)


def annotation(name: str, labels: str) -> Annotation:
    text, spans = side(labels)
    text = text.replace("12345", 5 * name)
    return Annotation(
        id=name,
        prompt_id="q",
        response=text,
        sentences=[Sentence(start=s.start, end=s.end, label=s.label) for s in spans],
    )


def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``build-pairs`` prints of the mix of a pair: one of four sentences wrong in one, right in the other."""
    write_records(folder / "prompts.jsonl", [Prompt(id="q", prompt="Tell me.")])
    write_records(folder / "labels.jsonl", [annotation("a", "rrrw"), annotation("b", "rwww")])
    inputs = folder / "prompts.jsonl", folder / "labels.jsonl"
    options = "--test-size", 0, "--max-similarity", 1, "--out", folder / "pairs.jsonl"
    assert exit_code("build-pairs", *inputs, *options) == 0
    shown = capsys.readouterr().out
    return " ".join(shown[shown.index("mix of the pairs") :].split())


def test_build_pairs_prints_the_mix_and_no_word_of_cells_where_there_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: Any
) -> None:
    shipped()
    text = printed(tmp_path, capsys)
    assert "share of wrong sentences in chosen answers │ 0.250" in text
    assert "mean margin of right / all sentences │ 0.500" in text
    assert "share of characters that the masks of mask-dpo leave out │" in text
    assert "docs/pairs.md says what these figures mean" in text and "cell" not in text and "map" not in text


def test_build_pairs_prints_the_nearest_cell_with_its_result_and_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: Any
) -> None:
    shipped(cell("4-best-worst", mix(0.22, 0.21, 4), "loses"), cell("16-best-worst", mix(0.22, 0.21, 16)))
    text = printed(tmp_path, capsys)
    assert "│ these pairs │ 4-best-worst │" in " ".join(text.replace("┃", "│").split())
    assert "share of characters that the masks of mask-dpo leave out (cell: of tokens) │" in text
    assert "nearest cell of the map of docs/evidence.md: 4-best-worst, 5 worlds" in text
    assert "mask-dpo │ -0.014 ± 0.006 │ +0.020 ± 0.030 │ loses" in text
    assert "strict │ +0.002 ± 0.004 │ +0.010 ± 0.020 │ undecided" in text
    assert "0.6M parameters" in text and "16-best" not in text


def test_build_pairs_names_no_cell_where_all_are_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: Any
) -> None:
    shipped(cell("far-off", mix(0.9, 0.9, 4)))
    text = printed(tmp_path, capsys)
    assert "No cell of the map" in text and "far-off" not in text
