"""The page as a file: what travels in it, and that nothing from a record can become markup."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskdpo.evaluate.page import PageStats, write_page, write_pairs_page
from maskdpo.html import render as html_module
from maskdpo.html.render import SummaryTable
from maskdpo.schemas import (
    Annotation,
    JudgeInfo,
    Label,
    Message,
    Pair,
    PairSentence,
    Prompt,
    Sentence,
    Status,
)
from maskdpo.verdicts.gold import matches

HOSTILE = "<script>alert(1)</script> </script><!-- & \u2028 \u2029 ]]> \u202eevil\u202c"


def annotation(
    text: str = "One. Two.", *, id: str = "a", prompt_id: str = "p", labels: tuple[Label, ...] = ()
) -> Annotation:
    """An answer cut into equal pieces, one a label; without labels it is one sentence that is right."""
    labels = labels or (Label.NO_HALLUCINATION,)
    size = len(text) // len(labels)
    sentences = [Sentence(start=i * size, end=(i + 1) * size, label=label) for i, label in enumerate(labels)]
    return Annotation(id=id, prompt_id=prompt_id, response=text, sentences=sentences)


def payload(html: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_payload_has_text_spans_labels_and_reference(tmp_path: Path) -> None:
    text = "😀 is a face. Héllo?"
    answer = Annotation(
        id="a",
        prompt_id="p",
        response=text,
        model="m",
        finish_reason="length",
        judge=JudgeInfo(name="llm", model="big", protocol="whole", version="1"),
        sentences=[
            Sentence(start=0, end=12, label=Label.CONTRADICTORY, confidence=0.7, evidence="a face", reason="no"),
            Sentence(start=13, end=len(text), status=Status.REFUSED),
        ],
    )
    prompts = {"p": Prompt(id="p", prompt="What?", reference=["one", "two"], topic="faces")}
    stats = write_page(tmp_path / "r.html", [answer], title="T", prompts=prompts)
    data = payload((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert stats == PageStats(
        items=1,
        answers=1,
        sentences=2,
        unmatched=0,
        gold_sentences=0,
        bytes=(tmp_path / "r.html").stat().st_size,
    )
    assert data["kind"] == "answers"
    assert data["judges"] == ["llm · big · whole"]
    assert data["prompts"] == [{"id": "p", "q": "What?", "topic": "faces", "ref": ["one", "two"]}]
    (item,) = data["items"]
    (side,) = item["a"]
    assert (side["t"], side["m"], side["fin"]) == (text, "m", "length")
    first, second = side["s"]
    assert first == {"b": 0, "e": 12, "l": "contradictory", "c": 0.7, "ev": "a face", "re": "no"}
    assert side["t"][first["b"] : first["e"]] == "😀 is a face."[:12]
    assert second == {"b": 13, "e": len(text), "st": "refused"}


def test_scores_travel_with_their_sentence(tmp_path: Path) -> None:
    scores = {Label.NO_HALLUCINATION: 1 / 3, Label.HALLUCINATION: 0.5}
    sentence = Sentence(start=0, end=4, status=Status.UNSURE, scores=scores)
    answer = annotation().model_copy(update={"sentences": [sentence]})
    write_page(tmp_path / "r.html", [answer], title="T")
    (shown,) = payload((tmp_path / "r.html").read_text())["items"][0]["a"][0]["s"]
    assert shown["sc"] == {"no_hallucination": 0.3333, "hallucination": 0.5}
    assert shown["st"] == "unsure"


def test_notes_stand_below_their_table(tmp_path: Path) -> None:
    table = SummaryTable("T", ["a"], [["b"]], ["Beware of <b>few</b> topics."])
    write_page(tmp_path / "r.html", [annotation()], title="T", summary=[table])
    assert "Beware of &lt;b&gt;few&lt;/b&gt; topics." in (tmp_path / "r.html").read_text()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    prompts = {"p": Prompt(id="p", prompt=HOSTILE, reference=HOSTILE, topic=HOSTILE)}
    answer = annotation(HOSTILE, id=HOSTILE)
    table = SummaryTable(HOSTILE, [HOSTILE], [[HOSTILE]])
    out = tmp_path / "r.html"
    write_page(out, [answer], title=HOSTILE, prompts=prompts, summary=[table])
    html = out.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 2
    assert "alert(1)" in html
    assert "<script>alert" not in html
    block = html[html.index('id="data">') :]
    block = block[len('id="data">') : block.index("</script>")]
    assert not set("<>&\u2028\u2029") & set(block)
    assert payload(html)["items"][0]["a"][0]["t"] == HOSTILE
    assert payload(html)["prompts"][0]["ref"] == [HOSTILE]


def test_self_contained_and_allowed_by_hash_only(tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_page(out, [annotation()], title="T")
    html = out.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(|https?://(?!www\.w3\.org/)""", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'")
    assert "unsafe" not in rules
    style, script = re.search(r"<style>(.*?)</style>", html, re.DOTALL), html.rsplit("<script>", 1)[1]
    assert style is not None
    for source in (style[1], script.split("</script>")[0]):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules
    for sink in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("):
        assert sink not in script


def test_two_files_are_matched_by_prompt_and_order(tmp_path: Path) -> None:
    before = [annotation(id="b1"), annotation(id="b2"), annotation(id="b3", prompt_id="q")]
    after = [annotation(id="a0", prompt_id="new"), annotation(id="a1"), annotation(id="a2")]
    stats = write_page(tmp_path / "r.html", before, title="T", compare=after)
    data = payload((tmp_path / "r.html").read_text())
    sides = [[side and side["id"] for side in item["a"]] for item in data["items"]]
    assert sides == [["b1", "a1"], ["b2", "a2"], ["b3", None], [None, "a0"]]
    assert (data["kind"], stats.items, stats.answers, stats.unmatched) == ("compare", 4, 6, 2)
    assert [p["id"] for p in data["prompts"]] == ["p", "q", "new"], "a prompt is stored once"


def test_gold_is_set_beside_the_sentence_that_it_speaks_of(tmp_path: Path) -> None:
    judged = annotation("aaaabbbb", labels=(Label.NO_HALLUCINATION, Label.CONTRADICTORY))
    gold = {"a": annotation("aaaabbbb", labels=(Label.HALLUCINATION, Label.HALLUCINATION))}
    stats = write_page(tmp_path / "r.html", [judged], title="T", gold=gold)
    data = payload((tmp_path / "r.html").read_text())
    assert [s["g"] for s in data["items"][0]["a"][0]["s"]] == ["hallucination"] * 2
    assert data["gold"] is True
    assert stats.gold_sentences == 2
    other_text = {"a": annotation("aaaabbbX", labels=(Label.HALLUCINATION, Label.HALLUCINATION))}
    assert write_page(tmp_path / "r.html", [judged], title="T", gold=other_text).gold_sentences == 0


def test_gold_is_matched_as_the_tables_match_it(tmp_path: Path) -> None:
    """However sentences are cut: each gold sentence stands beside the one that shares most with it."""
    spans = [(0, 4), (4, 20), (20, 30)]
    sentences = [Sentence(start=start, end=end, label=Label.NO_HALLUCINATION) for start, end in spans]
    judged = Annotation(id="a", prompt_id="p", response="x" * 30, sentences=sentences)
    cut = [Sentence(start=0, end=12, label=Label.NO_FACT), Sentence(start=12, end=30, label=Label.HALLUCINATION)]
    gold = {"a": judged.model_copy(update={"sentences": cut})}
    write_page(tmp_path / "r.html", [judged], title="T", gold=gold)
    shown = payload((tmp_path / "r.html").read_text())["items"][0]["a"][0]["s"]
    matched = {m.sentence.start: m.gold.label for m in matches([judged], gold) if m.sentence}
    assert {s["b"]: s["g"] for s in shown if "g" in s} == matched == {4: Label.NO_FACT, 20: Label.HALLUCINATION}


def test_the_page_knows_whether_labels_come_from_a_calibration(tmp_path: Path) -> None:
    judged = annotation("aaaabbbb", labels=(Label.NO_HALLUCINATION, Label.CONTRADICTORY))
    by_rule = judged.model_copy(update={"judge": JudgeInfo(name="llm", calibration="x")})
    write_page(tmp_path / "r.html", [judged, by_rule], title="T")
    items = payload((tmp_path / "r.html").read_text())["items"]
    assert [item["a"][0].get("cal") for item in items] == [None, 1]


def make_pair(**changes: Any) -> Pair:
    labels = [None, *Label]
    text = "x" * len(labels)
    sentences = [PairSentence(start=i, end=i + 1, label=label) for i, label in enumerate(labels)]
    values: dict[str, Any] = {
        "id": "1",
        "prompt_id": "p",
        "topic": "t",
        "prompt": [Message(role="system", content="S"), Message(role="user", content="Q?")],
        "chosen": [Message(role="assistant", content=text)],
        "rejected": [Message(role="assistant", content=text)],
        "chosen_sentences": sentences,
        "rejected_sentences": sentences,
        "chosen_score": 0.75,
    }
    return Pair(**(values | changes))


def test_pairs_mark_what_trains(tmp_path: Path) -> None:
    stats = write_pairs_page(tmp_path / "r.html", [make_pair(weight=0.5)], title="T")
    data = payload((tmp_path / "r.html").read_text())
    (item,) = data["items"]
    chosen, rejected = item["a"]
    assert [s.get("l") for s in chosen["s"] if s.get("tr")] == ["no_hallucination", "no_fact"]
    wrong = ["contradictory", "unverifiable", "hallucination"]
    assert [s.get("l") for s in rejected["s"] if s.get("tr")] == wrong
    assert item["w"] == 0.5
    assert (chosen["score"], rejected.get("score")) == (0.75, None)
    assert data["prompts"][0] == {"id": "p", "q": "Q?", "topic": "t", "ref": []}
    assert (stats.items, stats.answers, stats.sentences) == (1, 2, 12)


def test_reasoning_travels_beside_the_answer_and_counts_nowhere(tmp_path: Path) -> None:
    plain = annotation()
    thought = plain.model_copy(update={"reasoning": f"Hm. {HOSTILE}"})
    stats = [write_page(tmp_path / f"{i}.html", [each], title="T") for i, each in enumerate((plain, thought))]
    assert (stats[0].answers, stats[0].sentences) == (stats[1].answers, stats[1].sentences)
    html = (tmp_path / "1.html").read_text()
    (side,) = payload(html)["items"][0]["a"]
    assert (side["t"], side["r"]) == (plain.response, f"Hm. {HOSTILE}")
    assert "<script>alert(1)" not in html
    assert "r" not in payload((tmp_path / "0.html").read_text())["items"][0]["a"][0]
    write_pairs_page(tmp_path / "p.html", [make_pair(rejected_reasoning="Hm.")], title="T")
    chosen, rejected = payload((tmp_path / "p.html").read_text())["items"][0]["a"]
    assert (chosen.get("r"), rejected["r"]) == (None, "Hm.")


def test_string_pairs_work_too(tmp_path: Path) -> None:
    write_pairs_page(tmp_path / "r.html", [make_pair(prompt="Q", chosen="x" * 6, rejected="x" * 6)], title="T")
    assert payload((tmp_path / "r.html").read_text())["prompts"][0]["q"] == "Q"


def test_a_failure_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.html"
    out.write_text("old")

    def broken() -> Any:
        yield annotation()
        raise RuntimeError("the file is torn")

    with pytest.raises(RuntimeError):
        write_page(out, broken(), title="T")
    monkeypatch.setattr(html_module, "to_json", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(out, [annotation()], title="T")
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_no_answers_make_a_page(tmp_path: Path) -> None:
    assert write_page(tmp_path / "deep" / "r.html", [], title="T").items == 0
    assert (tmp_path / "deep" / "r.html").exists()


def test_a_lone_surrogate_does_not_stop_the_page(tmp_path: Path) -> None:
    write_page(tmp_path / "r.html", [annotation("bad \ud800 text")], title="T")
    assert payload((tmp_path / "r.html").read_text())["items"][0]["a"][0]["t"] == "bad ? text"
