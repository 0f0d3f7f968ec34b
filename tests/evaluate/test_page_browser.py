"""The page of answers and pairs in a real browser: headless Chromium, where there is one."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser

from maskdpo.evaluate.page import write_page, write_pairs_page
from maskdpo.html.render import SummaryTable
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Pair, PairSentence, Prompt, Sentence, Source, Status
from maskdpo.verdicts.figures import ece, reliability

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.slow

Labels = list[Label | Status]
RIGHT, WRONG, BAD = Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.HALLUCINATION


def answer(number: int, parts: list[tuple[str, Label | Status]], **more: Any) -> Annotation:
    """An answer of sentences with one space between them."""
    sentences, at = [], 0
    for text, verdict in parts:
        span = {"start": at, "end": at + len(text)}
        if isinstance(verdict, Label):
            sentences.append(Sentence(**span, label=verdict, confidence=0.8, **more.get("notes", {})))
        else:
            sentences.append(Sentence(**span, status=verdict))
        at += len(text) + 1
    fields = {key: value for key, value in more.items() if key != "notes"}
    return Annotation(
        id=f"a{number}",
        prompt_id=f"p{number}",
        response=" ".join(text for text, _ in parts),
        sentences=sentences,
        **fields,
    )


def small(tmp_path: Path, **more: Any) -> Path:
    """Four answers of two models: all right; half wrong; not judged; no fact, and long."""
    answers = [
        answer(0, [("Paris is in France.", RIGHT), ("It is a city.", RIGHT)], model="base"),
        answer(1, [("Rome is in Spain.", WRONG), ("It is old.", RIGHT)], model="base", finish_reason="length"),
        answer(2, [("Oslo is cold.", Status.REFUSED), ("It has a port.", Status.API_ERROR)], model="tuned"),
        answer(3, [("What a lovely question about Zürich!" * 3, Label.NO_FACT)], model="tuned"),
    ]
    notes = {"evidence": "city of  Rome", "reason": "Rome is Italian"}
    first = answers[1].sentences[0].model_copy(update=notes)
    answers[1] = answers[1].model_copy(update={"sentences": [first, *answers[1].sentences[1:]]})
    prompts = {
        f"p{i}": Prompt(
            id=f"p{i}",
            prompt=f"Question {i}?",
            topic=["France", "Italy", "Norway", "Switzerland"][i],
            reference=["Nothing here.", "The City\nof Rome is the capital of Italy."],
        )
        for i in range(4)
    }
    out = tmp_path / "r.html"
    write_page(out, answers, title="Small", prompts=prompts, **more)
    return out


def test_a_passage_that_was_found_in_a_document_says_where(browser: Browser, tmp_path: Path) -> None:
    found = Source(document="atlas/italy.md", title="Italy <b>", start=1200, end=1238, score=0.4)
    prompt = Prompt(
        id="p1",
        prompt="Where is Rome?",
        reference=["Nothing here.", "The City of Rome is the capital of Italy." + " More." * 1000],
        sources=[None, found],
    )
    judged = answer(1, [("Rome is in Spain.", WRONG)], notes={"evidence": "City of Rome"})
    out = tmp_path / "r.html"
    write_page(out, [judged], title="Found", prompts={"p1": prompt})
    browser.open(out)
    browser.find(".s").click()
    assert "in passage 2 (Italy <b>)" in browser.texts(".verdict")[0]
    line = "Italy <b> · atlas/italy.md, characters 1,200 to 1,238"
    assert browser.texts(".source") == [line]
    browser.find(".passage .link").click()  # the whole passage, below its source
    assert browser.texts(".source") == [line]


def shown(browser: Browser) -> list[str]:
    return browser.texts(".card h3")


def legend(browser: Browser) -> dict[str, str]:
    labels = browser.js("return [...document.querySelectorAll('.chip')].map(chip => chip.dataset.label)")
    return dict(zip(labels, browser.texts(".chip b"), strict=True))


def test_opens_with_all_four_groups(browser: Browser, tmp_path: Path) -> None:
    table = SummaryTable("Held out", ["model", "right"], [["<b>base</b>", "1.5"]])
    browser.open(small(tmp_path, summary=[table]))
    assert shown(browser) == [f"Question {i}?" for i in range(4)]
    assert browser.texts(".tile h2") == ["Right", "Wrong", "Nothing to check", "Not judged"]
    assert [t[:5] for t in browser.texts(".tile .big")] == ["42.9%", "14.3%", "14.3%", "28.6%"]
    assert legend(browser)["no_hallucination"] == "3"
    assert browser.text(".tables td") == "<b>base</b>"
    assert browser.texts(".s .why") == ["refused", "api error"]
    assert browser.count(".cut") == 1
    assert browser.count(".plots svg") == 2


def test_filters_and_their_counts(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))
    browser.find(".chip[data-label=contradictory]").click()
    assert shown(browser) == ["Question 1?"]
    assert browser.text("#shown") == "1 of 4 answers"
    assert legend(browser) == {
        "no_hallucination": "1",
        "contradictory": "1",
        "unverifiable": "0",
        "hallucination": "0",
        "no_fact": "0",
        "none": "0",
    }
    assert browser.count(".s.dim") == 1
    browser.find("#clear").click()
    assert len(shown(browser)) == 4
    browser.choose("model", "tuned")
    assert shown(browser) == ["Question 2?", "Question 3?"]
    browser.choose("status", "api_error")
    assert shown(browser) == ["Question 2?"]
    browser.find("#clear").click()
    browser.choose("status", "cut")
    assert shown(browser) == ["Question 1?"]
    browser.find("#clear").click()
    browser.find("#topic").send_keys("Norway")
    browser.until(lambda: shown(browser) == ["Question 2?"])
    browser.find("#topic").send_keys("xyz")
    browser.until(lambda: browser.count(".nothing") == 1)
    browser.find(".nothing .link").click()
    assert len(shown(browser)) == 4


def test_sorting(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))
    orders = {
        "high": ["Question 0?", "Question 1?", "Question 2?", "Question 3?"],
        "low": ["Question 2?", "Question 3?", "Question 1?", "Question 0?"],
        "wrong": ["Question 1?", "Question 0?", "Question 2?", "Question 3?"],
        "long": ["Question 3?", "Question 0?", "Question 1?", "Question 2?"],
    }
    for key, order in orders.items():
        browser.choose("sort", key)
        assert shown(browser) == order, key


def test_search_finds_words_phrases_and_reasons(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))
    field = browser.find("#query")
    for query, expected in {
        "paris": ["Question 0?"],
        "OLD": ["Question 1?", "Question 2?"],
        '"is OLD"': ["Question 1?"],
        '"it is a"': ["Question 0?"],
        "italian": ["Question 1?"],
        "zÜrich": ["Question 3?"],
        "(.*": [],
    }.items():
        field.clear()
        field.send_keys(query)
        browser.until(lambda expected=expected: shown(browser) == expected)
    field.clear()
    field.send_keys("FRANCE")
    browser.until(lambda: "France" in browser.texts(".text mark"))
    address = browser.js("return location.hash")
    assert address == "#query=FRANCE"


def test_a_view_survives_in_the_address(browser: Browser, tmp_path: Path) -> None:
    path = small(tmp_path)
    browser.open(path)
    browser.driver.get("about:blank")
    browser.driver.get(path.as_uri() + "#model=tuned&labels=none,__proto__&sort=nonsense&query=")
    browser.until(lambda: shown(browser) == ["Question 2?"])
    assert browser.js("return document.getElementById('sort').value") == "file"


def test_keyboard(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))

    def now() -> str:
        return browser.text(".card.current h3")

    browser.press("j")
    assert now() == "Question 0?"
    browser.press("j", "j")
    assert now() == "Question 2?"
    browser.press("k")
    assert now() == "Question 1?"
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text(".s.now").startswith("Rome is in Spain.")
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text(".s.now").startswith("It is old.")
    browser.press(Keys.ARROW_DOWN)
    assert now() == "Question 2?"
    browser.press("N")
    assert browser.text(".s.now").startswith("Rome")
    browser.press("/")
    assert browser.js("return document.activeElement.id") == "query"
    browser.press("j")
    assert browser.js("return document.activeElement.value") == "j"
    browser.press(Keys.ESCAPE)
    assert browser.js("return document.activeElement.id") != "query"
    browser.press("x", "?")
    assert browser.js("return document.getElementById('keys').open")
    browser.press(Keys.ESCAPE)
    assert not browser.js("return document.getElementById('keys').open")


def test_verdict_and_evidence_in_the_reference(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))
    browser.js("document.querySelector('.s.l-contradictory').focus()")
    verdict = browser.text("#verdict")
    for part in ("Contradicted", "confidence 0.80", "Rome is Italian", "in passage 2"):
        assert part in verdict
    assert browser.texts(".passage mark") == ["City\nof Rome"]
    browser.js("document.querySelector('.s.l-none').focus()")
    assert "Status refused" in browser.text("#verdict")


def test_hover_shows_the_verdict(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path), height=1500)
    target = browser.find(".s.l-contradictory")
    webdriver.ActionChains(browser.driver).move_to_element(target).move_by_offset(4, 0).perform()
    browser.until(lambda: "Rome is Italian" in browser.text("#verdict"))


def test_gold_disagreement(browser: Browser, tmp_path: Path) -> None:
    gold = {
        "a0": answer(0, [("Paris is in France.", RIGHT), ("It is a city.", BAD)]),
        "a1": answer(1, [("Rome is in Spain.", BAD), ("It is old.", RIGHT)]),
    }
    browser.open(small(tmp_path, gold=gold))
    assert browser.count(".plots svg") == 3
    assert browser.texts(".matrix tbody tr:first-child td") == ["2", "1", "0"]
    assert browser.texts(".dot title") == ["confidence 0.80: agrees 75.0% of 4"]
    assert "calibration error 0.050" in browser.texts(".plot small")
    browser.find("#disagree").click()
    assert shown(browser) == ["Question 0?"]
    assert browser.texts(".s.differs") == ["It is a city."]
    browser.js("document.querySelector('.s.differs').focus()")
    assert "gold says hallucination" in browser.text("#verdict")


def scored(number: int, scores: list[dict[Label, float]], threshold: float = 0.6) -> Annotation:
    """An answer of one sentence for each of the scores; ``unsure`` where no label has the probability."""
    made = answer(number, [(f"Sentence {i} of {number}.", RIGHT) for i in range(len(scores))])
    sentences = []
    for sentence, known in zip(made.sentences, scores, strict=True):
        label = max(known, key=lambda name: known[name])
        verdict = {"label": label} if known[label] >= threshold else {"label": None, "status": Status.UNSURE}
        sentences.append(sentence.model_copy(update={"scores": known, "confidence": known[label], **verdict}))
    return made.model_copy(update={"sentences": sentences})


def test_unsure_sentences_have_a_look_a_filter_and_a_place_of_their_own(browser: Browser, tmp_path: Path) -> None:
    answers = [
        scored(0, [{RIGHT: 0.9, WRONG: 0.1}]),
        scored(1, [{RIGHT: 0.5, WRONG: 0.3, Label.UNVERIFIABLE: 0.1}, {RIGHT: 1.0}]),
        scored(2, [{RIGHT: 0.2, WRONG: 0.7}]),
        answer(3, [("Oslo is cold.", Status.REFUSED)]),
    ]
    out = tmp_path / "r.html"
    write_page(out, answers, title="T")
    browser.open(out)
    assert (legend(browser)["unsure"], legend(browser)["none"]) == ("1", "1")
    assert browser.texts(".s.l-unsure") == ["Sentence 0 of 1.unsure"]
    browser.js("document.querySelector('.s.l-unsure').focus()")
    assert "This is no failure" in browser.text("#verdict")
    assert browser.texts(".scores dt") == ["✓ Right", "✕ Contradicted", "? Not in the reference", "left open"]
    assert browser.texts(".scores dd") == ["0.50", "0.30", "0.10", "0.10"]
    width = browser.js("return document.querySelector('.scores .meter i').getBoundingClientRect().width")
    whole = browser.js("return document.querySelector('.scores .meter').getBoundingClientRect().width")
    assert abs(width - whole / 2) < 1
    browser.choose("sort", "doubt")
    assert shown(browser) == ["p1", "p2", "p0", "p3"], "the most doubtful first; where nothing is known, last"
    browser.choose("status", "unsure")
    assert shown(browser) == ["p1"]
    browser.find("#clear").click()
    browser.find(".chip[data-label=none]").click()
    assert shown(browser) == ["p3"]


def test_under_a_calibration_doubt_is_by_its_confidence(browser: Browser, tmp_path: Path) -> None:
    """The raw scores of a judge that says right to everything are sure of everything."""
    judge = JudgeInfo(name="llm", calibration="x")
    raw = [scored(i, [{RIGHT: p, WRONG: 1 - p}], threshold=0) for i, p in enumerate((0.6, 0.99, 0.95, 0.9))]
    changes: list[dict[str, object]] = [
        {"confidence": 0.9},
        {"confidence": 0.55},
        {"label": None, "confidence": None, "status": Status.UNSURE},
        {"confidence": 0.7},
    ]
    answers = [
        a.model_copy(update={"judge": judge, "sentences": [a.sentences[0].model_copy(update=change)]})
        for a, change in zip(raw, changes, strict=True)
    ]
    out = tmp_path / "r.html"
    write_page(out, answers, title="T")
    browser.open(out)
    browser.choose("sort", "doubt")
    assert shown(browser) == ["p2", "p1", "p3", "p0"]
    write_page(out, [a.model_copy(update={"judge": None}) for a in answers], title="T")
    browser.open(out)
    browser.choose("sort", "doubt")
    assert shown(browser)[0] == "p0"


def test_pages_without_unsure_sentences_do_not_speak_of_them(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_page(out, [answer(0, [("Oslo is cold.", Status.REFUSED)])], title="T")
    browser.open(out)
    assert "unsure" not in legend(browser)
    browser.open(small(tmp_path))
    assert browser.js("return [...document.getElementById('sort').options].map(o => o.value)").count("doubt") == 1


def test_reliability_has_the_bins_of_evaluate(browser: Browser, tmp_path: Path) -> None:
    chances = [(7 * i % 40) / 40 for i in range(40)]
    answers = [scored(i, [{RIGHT: p, WRONG: 1 - p}], threshold=0) for i, p in enumerate(chances)]
    true = [chance > 0.5 or i % 4 == 0 for i, chance in enumerate(chances)]
    gold = {
        a.id: a.model_copy(update={"sentences": [a.sentences[0].model_copy(update={"label": RIGHT if t else BAD})]})
        for a, t in zip(answers, true, strict=True)
    }
    out = tmp_path / "r.html"
    write_page(out, answers, title="T", gold=gold)
    browser.open(out)
    expected = reliability(np.array(chances), np.array(true), [str(i) for i in range(40)])
    assert len(expected) == 4
    assert sorted(browser.texts(".dot title")) == [
        f"P(right) {b.probability:.2f}: right in gold {100 * b.share.value:.1f}% of {b.sentences}" for b in expected
    ]
    assert f"calibration error {ece(np.array(chances), np.array(true)):.3f}" in browser.texts(".plot small")


def several(number: int, prompt: int, parts: list[tuple[str, Label | Status]], **more: Any) -> Annotation:
    """One of several answers to a prompt."""
    return answer(number, parts, **more).model_copy(update={"prompt_id": f"p{prompt}"})


def groups(browser: Browser) -> list[tuple[str, list[str]]]:
    """The headings and the numbers of the answers that stand below each of them."""
    script = """return [...document.querySelectorAll('.card')].map(card => [
      card.querySelector('h3')?.textContent ?? null, card.querySelector('.number').textContent])"""
    found: list[tuple[str, list[str]]] = []
    for heading, number in browser.js(script):
        if heading is not None:
            found.append((heading, []))
        found[-1][1].append(number)
    return found


def test_the_answers_to_one_prompt_stand_below_it(browser: Browser, tmp_path: Path) -> None:
    answers = [
        several(0, 0, [("Paris is in France.", RIGHT)], model="base"),
        several(1, 1, [("Rome is in Spain.", WRONG)], model="base"),
        several(2, 0, [("Paris is in Spain.", WRONG), ("It is old.", RIGHT)], model="tuned"),
        several(3, 1, [("Rome is in Italy.", RIGHT)], model="tuned"),
        several(4, 0, [("Paris is old.", RIGHT)], model="base"),
    ]
    prompts = {f"p{i}": Prompt(id=f"p{i}", prompt=f"Question {i}?", topic=f"Topic {i}") for i in range(2)}
    out = tmp_path / "r.html"
    write_page(out, answers, title="T", prompts=prompts)
    browser.open(out)
    assert groups(browser) == [("Question 0?", ["#1", "#3", "#5"]), ("Question 1?", ["#2", "#4"])]
    assert browser.texts(".topic") == ["Topic 0", "Topic 1"]
    assert browser.texts(".run") == ["3 answers", "2 answers"]
    edges = "return [...document.querySelectorAll('.card')].map(n => n.getBoundingClientRect())"
    boxes = browser.js(f"{edges}.map(box => [box.top, box.bottom])")
    gaps = [round(below[0] - over[1]) for over, below in pairwise(boxes)]
    assert gaps == [0, 0, 18, 0], "one card for the eye"

    browser.press("j", "j", "j")
    assert browser.text(".card.current .number") == "#5"
    browser.choose("model", "tuned")
    assert groups(browser) == [("Question 0?", ["#3"]), ("Question 1?", ["#4"])]
    assert browser.texts(".run") == ["1 of 3 answers", "1 of 2 answers"]
    browser.find("#clear").click()
    browser.find("#query").send_keys("old")
    browser.until(lambda: groups(browser) == [("Question 0?", ["#3", "#5"])])
    browser.find("#clear").click()
    browser.choose("sort", "low")  # the order that was asked for comes first: a heading may come again
    assert groups(browser) == [("Question 1?", ["#2"]), ("Question 0?", ["#3", "#1"]), *groups(browser)[2:]]
    assert groups(browser)[2:] == [("Question 1?", ["#4"]), ("Question 0?", ["#5"])]


def test_thousands_of_answers_to_one_prompt_are_made_as_they_come_near(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_page(out, [several(i, i % 2, [(f"Paris is {i}.", RIGHT)]) for i in range(3000)], title="T")
    browser.open(out)
    assert browser.count(".card") < 40
    browser.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    browser.until(lambda: browser.texts(".card .number")[-1:] == ["#3000"])
    assert browser.count(".card") < 40


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (375, 667)])
@pytest.mark.parametrize("compared", [False, True])
def test_the_first_answer_is_on_the_first_screen(
    browser: Browser, tmp_path: Path, width: int, height: int, compared: bool
) -> None:
    rows = [[f"row {i}", "0.5 [0.4, 0.6]"] for i in range(9)]
    tables = [SummaryTable(f"Table {i}", ["with 95% intervals", "value"], rows, ["A note."]) for i in range(11)]
    again = [answer(i, [("It is so.", RIGHT)], model="tuned") for i in range(4)] if compared else None
    browser.open(small(tmp_path, summary=tables, compare=again), width=width, height=height)
    assert browser.js("return document.querySelector('.s').getBoundingClientRect().bottom") < height - 60
    assert browser.texts("#headline .figure b")[0] == ("42.9% → 100.0%" if compared else "42.9%")
    seen = "return document.querySelector('.tables').checkVisibility({contentVisibilityAuto: true})"
    assert browser.js(seen) is False
    browser.press("f")
    assert browser.js(seen) is True
    assert browser.count(".tables figure") == 11
    browser.find("#headline").click()
    assert browser.js(seen) is False
    browser.js("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.js(seen) is True, "paper cannot be unfolded"
    browser.js("window.dispatchEvent(new Event('afterprint'))")
    assert browser.js(seen) is False


def test_before_and_after_side_by_side(browser: Browser, tmp_path: Path) -> None:
    before = [answer(0, [("A.", WRONG), ("B.", RIGHT)]), answer(1, [("C.", RIGHT)])]
    after = [answer(0, [("A.", RIGHT), ("B.", RIGHT)])]
    out = tmp_path / "r.html"
    write_page(out, before, title="T", compare=after)
    browser.open(out)
    assert browser.texts(".answer b.side") == ["Before", "After", "Before", "After"]
    assert browser.count(".empty-side") == 1
    assert "66.7%→100.0%" in browser.text(".tile .big")
    browser.choose("sort", "gain")
    assert shown(browser) == ["p0", "p1"]
    left, right = browser.js(
        "return [...document.querySelectorAll('.answer')].slice(0, 2).map(n => n.getBoundingClientRect().top)"
    )
    assert left == right
    browser.open(out, width=390)
    left, right = browser.js(
        "return [...document.querySelectorAll('.answer')].slice(0, 2).map(n => n.getBoundingClientRect().top)"
    )
    assert left < right, "on a phone one stands below the other"


def test_figures_by_file(browser: Browser, tmp_path: Path) -> None:
    def figure(value: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
        return {"value": value, "low": low, "high": high}

    by_file = {
        "before": {"right / all sentences": figure(0.5, 0.4, 0.6), "right sentences / answer": figure(2, None, None)},
        "after": {"right / all sentences": figure(0.7, 0.6, 0.8), "right sentences / answer": figure(3, None, None)},
        "after-2": {"right / all sentences": figure(None, None, None), "right sentences / answer": figure(4, 3, 5)},
    }
    out = tmp_path / "r.html"
    write_page(out, [answer(0, [("A.", RIGHT)])], title="T", compare=[answer(0, [("B.", RIGHT)])], by_file=by_file)
    browser.open(out)
    browser.find("#headline").click()
    assert "Figures by file" in browser.text("#plots figcaption")
    plot = "#plots figure:first-child"
    assert (browser.count(f"{plot} circle"), browser.count(f"{plot} .whisker")) == (5, 3)
    found = "return [...document.querySelectorAll('#plots figure:first-child circle title')].map(n => n.textContent)"
    assert browser.js(found)[1] == "after: 0.700 [0.600, 0.800]"


def test_pairs(browser: Browser, tmp_path: Path) -> None:
    sides = [
        PairSentence(start=0, end=2, label=RIGHT),
        PairSentence(start=3, end=5, label=WRONG),
        PairSentence(start=6, end=8),
    ]
    pair = Pair(
        id="1",
        prompt_id="p",
        topic="t",
        prompt="Q",
        chosen="A. B. C.",
        rejected="D. E. F.",
        chosen_sentences=sides,
        rejected_sentences=sides,
    )
    out = tmp_path / "r.html"
    write_pairs_page(out, [pair], title="T")
    browser.open(out)
    assert browser.texts(".s.trained.up") == ["A."]
    assert browser.texts(".s.trained.down") == ["E."]
    assert browser.count(".s.masked") == 4
    browser.js("document.querySelector('.s.masked').focus()")
    assert "takes no part" in browser.text("#verdict")


def test_pairs_token_by_token(browser: Browser, tmp_path: Path) -> None:
    sentences = [PairSentence(start=0, end=6, label=RIGHT), PairSentence(start=7, end=11, label=WRONG)]
    fields: dict[str, Any] = {
        "prompt_id": "p",
        "topic": "t",
        "prompt": "Q",
        "chosen": "😀 One. Two.",
        "rejected": "Three four.",
    }
    fields |= {"chosen_sentences": sentences, "rejected_sentences": sentences}
    spans: dict[str, Any] = {"1": {"chosen": [(0, 3), (5, 8)], "rejected": [(6, 10)]}, "2": "the answer is empty"}
    out = tmp_path / "r.html"
    pairs = [Pair(id=number, **fields) for number in spans]
    write_pairs_page(out, pairs, title="T", tokens=lambda pair: spans[pair.id])
    browser.open(out)
    assert browser.texts(".tok") == ["😀 O", ".", " ", "T", "f", "our"]
    assert browser.texts(".s.trained.up") == ["😀 One.", "Two."], "a sentence of which some text trains"
    assert browser.texts(".s.trained.down") == ["our."]
    assert browser.texts(".card .meta .cut") == ["not trained on: the answer is empty"]
    assert browser.text(".card .text") == "😀 One. Two."


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror=hacked=1>",
    "\u202eright to left\u202d",
    "שלום עולם!",
    "a<!--\u2028&lt;",
]


def test_hostile_text_is_shown_as_it_is(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    everywhere = " ".join(HOSTILE)
    notes = {"evidence": everywhere, "reason": everywhere}
    bad = answer(0, [(text, WRONG) for text in HOSTILE], model=everywhere, notes=notes)
    prompts = {"p0": Prompt(id="p0", prompt=everywhere, topic=everywhere, reference=everywhere)}
    table = SummaryTable(everywhere, [everywhere], [[everywhere]])
    write_page(out, [bad], title=everywhere, prompts=prompts, summary=[table])
    browser.open(out)
    browser.js("document.querySelector('.s').focus()")
    assert browser.texts(".s") == HOSTILE
    assert browser.text(".card h3") == everywhere
    assert browser.count("script") == 2
    assert browser.count("img") == 0
    assert browser.js("return typeof window.hacked") == "undefined"
    isolation = "return [...document.querySelectorAll('.s')].map(n => getComputedStyle(n).unicodeBidi)"
    assert set(browser.js(isolation)) == {"isolate"}
    assert browser.driver.title == everywhere


def test_reasoning_is_folded_above_the_answer_and_stays_open(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    thought = "\nIt may be Rome. <b>No</b>.\n"
    sides = [("Paris is in France.", RIGHT), ("Rome is in Spain.", WRONG)]
    write_page(out, [answer(0, sides, reasoning=thought), answer(1, sides, reasoning=" \n")], title="T")
    browser.open(out)
    assert browser.count("details.reasoning") == 1  # white space is no reasoning to show
    assert browser.text(".reasoning summary") == "Reasoning (26 chars)"
    assert browser.js("return document.querySelector('.reasoning').open") is False
    assert browser.js("return document.querySelector('.reasoning .text').textContent") == thought.strip()
    assert browser.js("return document.querySelector('.card .reasoning').nextSibling.className") == "text"
    assert browser.count(".reasoning b") == 0
    assert browser.texts(".card .length")[0] == browser.texts(".card .length")[1]  # the answer's own
    browser.js("document.querySelector('.reasoning summary').click()")
    browser.js("document.querySelector('.s').focus()")
    browser.js("document.querySelector('.s').click()")
    assert browser.js("return document.querySelector('.reasoning').open") is True


def test_right_to_left_answers_run_from_the_right(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_page(out, [answer(0, [("שלום עולם.", RIGHT), ("Hello there.", WRONG), ("מה?", RIGHT)])], title="T")
    browser.open(out)
    script = "return [...document.querySelectorAll('.s')].map(n => n.getBoundingClientRect().left)"
    first, second, third = browser.js(script)
    assert first > second > third
    script = "return [...document.querySelectorAll('.s')].map(n => getComputedStyle(n).direction)"
    assert browser.js(script) == ["rtl", "ltr", "rtl"], "each sentence keeps its own direction"


def test_code_points_beyond_the_basic_plane(browser: Browser, tmp_path: Path) -> None:
    parts = ["😀 smiles 👩‍👩‍👧.", "𝒳 is a letter.", "日本語。", "plain"]
    out = tmp_path / "r.html"
    write_page(out, [answer(0, [(text, RIGHT) for text in parts])], title="😀")
    browser.open(out)
    assert browser.texts(".s") == parts
    browser.find("#query").send_keys("日本")
    browser.until(lambda: browser.texts(".text mark") == ["日本"])


def test_a_very_long_sentence_is_folded(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    long = "😀" + "word " * 40_000 + "end."
    write_page(out, [answer(0, [(long, WRONG), ("Last.", RIGHT)]), answer(1, [("Next.", RIGHT)])], title="T")
    browser.open(out)
    assert len(browser.text(".card .text")) < 5000
    browser.press("j", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    browser.until(lambda: browser.text(".s.now") == "Last.")
    assert browser.text(".card .text") == f"{long} Last."
    browser.press("j")
    browser.until(lambda: browser.text(".card.current h3") == "p1")
    top = "return document.querySelector('.card.current').getBoundingClientRect().top"
    browser.until(lambda: 0 < browser.js(top) < 900)


@pytest.mark.parametrize("width", [1300, 390])
def test_giant_strings_anywhere_do_not_break_the_page(browser: Browser, tmp_path: Path, width: int) -> None:
    giant = "x" * 300_000
    notes = {"evidence": giant, "reason": giant}
    bad = answer(0, [("It is so.", WRONG), (giant, RIGHT)], model=giant, notes=notes)
    prompts = {"p0": Prompt(id="p0", prompt=giant, topic=giant, reference=[giant, "short"])}
    out = tmp_path / "r.html"
    write_page(out, [bad, answer(1, [("Next.", RIGHT)], model="m")], title="T", prompts=prompts)
    browser.open(out, width=width)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    browser.js("document.querySelector('.s').focus()")
    assert "Contradicted" in browser.text("#verdict")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    browser.press("j", "j")
    browser.until(lambda: browser.text(".card.current h3") == "p1")


def many(tmp_path: Path, n: int) -> Path:
    out = tmp_path / "many.html"
    cycle = [RIGHT, WRONG, Label.NO_FACT, Label.UNVERIFIABLE, RIGHT]
    answers = (
        answer(
            i,
            [
                (f"Sentence {k} of answer {i} says a thing. " * (1 + i % 4), cycle[(i + k) % 5])
                for k in range(1 + i % 7)
            ],
        )
        for i in range(n)
    )
    prompts = {f"p{i}": Prompt(id=f"p{i}", prompt=f"Question {i}?", reference="Facts. " * 100) for i in range(n)}
    write_page(out, answers, title="Many", prompts=prompts)
    return out


def test_five_thousand_answers(browser: Browser, tmp_path: Path) -> None:
    path = many(tmp_path, 5000)
    start = time.monotonic()
    browser.open(path)
    assert time.monotonic() - start < 30
    assert browser.count(".card") < 40
    browser.js("window.scrollTo(0, document.documentElement.scrollHeight)")
    browser.until(lambda: "Question 4999?" in shown(browser))
    assert browser.count(".card") < 40
    browser.js("window.scrollTo(0, document.documentElement.scrollHeight / 2)")
    browser.until(lambda: "Question 4999?" not in shown(browser))
    at_centre = "return document.elementsFromPoint(400, 400).concat(document.elementsFromPoint(400, 440))"
    browser.until(lambda: browser.js(f"{at_centre}.some(n => n.matches('.card'))"))
    field = browser.find("#query")
    start = time.monotonic()
    field.send_keys('"answer 4321 says"')
    browser.until(lambda: shown(browser) == ["Question 4321?"])
    assert time.monotonic() - start < 10
    field.clear()
    browser.until(lambda: browser.text("#shown") == "5,000 answers")


def test_what_is_read_stays_in_place_while_cards_above_are_measured(browser: Browser, tmp_path: Path) -> None:
    browser.open(many(tmp_path, 300))
    browser.js("window.scrollTo(0, document.documentElement.scrollHeight / 2)")
    browser.until(lambda: browser.count(".card") > 0)
    script = """
      const done = arguments[0], jumps = [];
      const cards = () => [...document.querySelectorAll('.card')];
      const eye = () => cards().find(n => n.getBoundingClientRect().bottom > 100);
      let left = 40;
      (function step() {
        const card = eye(), before = card && card.getBoundingClientRect().top;
        window.scrollBy(0, -120);
        requestAnimationFrame(() => requestAnimationFrame(() => {
          if (card && card.isConnected) jumps.push(Math.abs(card.getBoundingClientRect().top - before - 120));
          if (--left) step(); else done(Math.max(...jumps));
        }));
      })();"""
    assert browser.driver.execute_async_script(script) < 2


def test_theme_and_print(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path))
    background = "return getComputedStyle(document.body).backgroundColor"
    light = browser.js(background)
    browser.find("#theme").click()
    assert browser.js(background) != light
    browser.find("#theme").click()
    assert browser.js(background) == light
    browser.js("window.dispatchEvent(new Event('beforeprint'))")
    assert len(browser.texts(".notes li")) == 3
    assert "Rome is Italian" in browser.text(".notes")
    browser.js("window.dispatchEvent(new Event('afterprint'))")
    assert browser.count(".notes") == 0


def contrast(browser: Browser, selector: str) -> float:
    """WCAG contrast of a text against what lies behind it, painted by the browser itself."""
    script = """
      const node = document.querySelector(arguments[0]);
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const grounds = [];
      for (let n = node; n; n = n.parentElement) grounds.unshift(getComputedStyle(n).backgroundColor);
      const paint = colour => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
      const light = () => {
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
          .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      grounds.forEach(paint);
      const ground = light();
      paint(getComputedStyle(node).color);
      const ink = light();
      return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);"""
    return browser.js(script, selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_system_and_is_readable(browser: Browser, tmp_path: Path, scheme: str) -> None:
    page = small(tmp_path)
    browser.js("try { localStorage.clear() } catch {}")
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    try:
        browser.open(page)
        browser.js("localStorage.removeItem('maskdpo-theme')")
        browser.open(page)
        assert browser.js("return getComputedStyle(document.documentElement).colorScheme") == scheme
        for text in (
            "h1",
            ".sub",
            ".small",
            ".s.l-no_hallucination",
            ".s.l-contradictory",
            ".s.l-no_fact",
            ".s.l-none",
        ):
            assert contrast(browser, text) >= 4.5, text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_labels_do_not_rest_on_colour(browser: Browser, tmp_path: Path) -> None:
    labels: Labels = [*Label, Status.REFUSED, Status.UNSURE, Status.FRAGMENT]
    out = tmp_path / "r.html"
    write_page(out, [answer(0, [("It is so.", label) for label in labels])], title="T")
    browser.open(out)
    script = """return [...document.querySelectorAll('.s')].map(n => [
      getComputedStyle(n, '::after').content,
      getComputedStyle(n).textDecorationStyle,
      getComputedStyle(n).textDecorationLine,
    ])"""
    marks, lines = zip(*((mark, (style, line)) for mark, style, line in browser.js(script)), strict=True)
    assert len(set(marks)) == len(set(lines)) == len(labels) == 8


def test_a_fragment_is_shown_and_filtered_and_in_no_count(browser: Browser, tmp_path: Path) -> None:
    parts: Labels = [RIGHT, WRONG]
    cut = answer(0, [("Rome is old.", label) for label in parts], finish_reason="length")
    torn = Sentence(start=26, end=35, kind=Kind.FRAGMENT, status=Status.FRAGMENT)
    cut = cut.model_copy(update={"response": cut.response + " It was bu", "sentences": [*cut.sentences, torn]})
    out = tmp_path / "r.html"
    write_page(out, [cut, answer(1, [("It is so.", RIGHT)])], title="T")
    browser.open(out)
    assert legend(browser)["fragment"] == "1"
    assert browser.text(".s.l-fragment .why") == "fragment"
    assert [t[:5] for t in browser.texts(".tile .big")] == ["66.7%", "33.3%", "0.0%", "0.0%"]
    assert browser.text(".barline .total") == "3"
    browser.find(".chip[data-label=fragment]").click()
    assert shown(browser) == ["p0"]


def test_phone_has_no_sideways_scrolling_and_a_sheet(browser: Browser, tmp_path: Path) -> None:
    browser.open(small(tmp_path), width=390, height=840)
    assert browser.js("return document.documentElement.scrollWidth") <= 390
    shown_as = "return getComputedStyle(document.getElementById('inspector')).display"
    assert browser.js(shown_as) == "none"
    browser.js("document.querySelector('.s').click()")
    assert browser.js(shown_as) == "block"
    browser.find(".inspector .close").click()
    assert browser.js(shown_as) == "none"
