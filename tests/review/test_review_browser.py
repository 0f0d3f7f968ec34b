"""The page of a review in a real browser: decisions by key and by touch, mended cuts, and a server that dies."""

import time
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from command_line import exit_code
from review_world import JUDGE, NONE, OPEN, RIGHT, WRONG, Serving, annotation, decisions, serving, words, write_world

from maskdpo.io import read_records, write_records
from maskdpo.schemas import Annotation, Decision, Prompt
from maskdpo.verdicts.people import standing

pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'maskdpo[review]'")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

KEYS = {"1": RIGHT, "2": WRONG, "3": OPEN, "4": NONE}


def all_saved(browser: Browser) -> None:
    browser.until(lambda: browser.js("return document.documentElement.dataset.saved") == "yes")
    assert browser.text("#saved") == "all saved"


def count(browser: Browser) -> str:
    return browser.text("#count")


def now(browser: Browser) -> str:
    return browser.text("#here")


def counting(file: Path) -> list[Decision]:
    return [one for one in standing(decisions(file)) if one.label]


def at_first(browser: Browser) -> None:
    """Nothing of an earlier test is kept: neither a token nor what was not sent."""
    browser.js("localStorage.clear()")


def test_fifty_decisions_by_key(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 50) as server:
        browser.open(server.url)
        assert browser.js("return location.href") == server.address, "the address does not keep the token"
        seen = []
        begun = time.monotonic()
        for k in range(50):
            seen.append(now(browser))
            browser.press("1234"[k % 4])
        spent = time.monotonic() - begun
        all_saved(browser)
        assert browser.text("#done h3") == "All sentences of this queue are decided."
        assert browser.texts("#done dd") == ["13", "13", "12", "12", "0"]
        browser.open(server.address)
        assert browser.count("#done h3") == 1, "a page that is loaded again has the token, and all is still decided"
        assert server.end() == 0
    made = decisions(out)
    assert [one.response[one.start : one.end] for one in made] == seen
    assert len(set(seen)) == 50
    assert [one.label for one in made] == [KEYS["1234"[k % 4]] for k in range(50)]
    assert {(one.reviewer, one.queue, one.inclusion, one.shown) for one in made} == {("anna", "random", 50 / 60, False)}
    assert 0 < sum(one.seconds or 0 for one in made) < spent + 5
    assert spent < 50, "a page that waits for its server would take longer"


def test_skip_undo_note_and_moving_on(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 10) as server:
        browser.open(server.url)
        first = now(browser)
        browser.press("n")
        assert browser.js("return document.activeElement.id") == "note"
        browser.press("2 rivers, not 1", Keys.ENTER)
        assert now(browser) == first, "a digit in a note is no decision"
        browser.press("2")
        second = now(browser)
        browser.press(Keys.ARROW_RIGHT)
        third = now(browser)
        assert len({first, second, third}) == 3
        browser.press(Keys.ARROW_LEFT)
        assert now(browser) == second
        browser.press("s")
        assert (now(browser), count(browser)) == (third, "2 of 10")
        browser.press("u")
        assert (now(browser), count(browser)) == (second, "1 of 10")
        browser.press("u")
        assert (now(browser), count(browser)) == (first, "0 of 10")
        browser.press("u")
        assert browser.text("#told") == "There is nothing to undo."
        browser.press("1", "4")
        all_saved(browser)
        browser.open(server.url)
        assert count(browser) == "2 of 10"
        browser.press("u")
        assert now(browser) == second, "what an earlier page decided can be undone, too"
        all_saved(browser)
    assert [one.act for one in decisions(out)] == ["label", "skip", "undo", "undo", "label", "label", "undo"]
    assert decisions(out)[0].note == "2 rivers, not 1"
    assert [(one.label, one.response[one.start : one.end]) for one in counting(out)] == [(RIGHT, first)]


def one_answer(folder: Path, *parts: str, **more: Any) -> list[str]:
    """An answer of these sentences, in a queue of its own."""
    told = {"reference": "The river is long."} | more
    write_records(folder / "prompts.jsonl", [Prompt.model_validate({"id": "p0", "prompt": "What?", **told})])
    write_records(folder / "annotations.jsonl", [annotation(0, [(part, WRONG, 0.5) for part in parts])])
    return [*words(folder), "--out", str(folder / "d.jsonl"), "--reviewer", "anna"]


def go_to(browser: Browser, sentence: str) -> None:
    for _ in range(20):
        if now(browser) == sentence:
            return
        browser.press(Keys.ARROW_RIGHT)
    raise AssertionError(f"{sentence!r} is not open; {now(browser)!r} is")


def test_joining_and_splitting_by_key(browser: Browser, tmp_path: Path) -> None:
    parts = ["Dr.", "Moss 😀 met Mr.", "Reed.", "It rained and it was cold.", "# End", "Bye."]
    with serving(*one_answer(tmp_path, *parts)) as server:
        browser.open(server.url)
        go_to(browser, "Moss 😀 met Mr.")
        browser.press("j", "J")
        assert now(browser) == "Dr. Moss 😀 met Mr. Reed."
        browser.press("u")
        assert now(browser) == "Moss 😀 met Mr. Reed.", "undo takes back one step"
        browser.press("J", "1")
        assert count(browser) == "3 of 5", "one decision for three sentences"
        go_to(browser, "It rained and it was cold.")
        browser.press("j")
        assert "no sentence to join" in browser.text("#told"), "a heading is none"
        browser.press("x")
        assert browser.count("#here .caret") == 1
        browser.press(Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, "1", Keys.ENTER)
        assert now(browser) == "It rained and", "a label is not given while a cut is chosen"
        browser.press("3")
        assert now(browser) == "it was cold."
        browser.press("u")
        assert now(browser) == "It rained and"
        browser.press("2")
        all_saved(browser)
        browser.open(server.url)
        assert count(browser) == "3 of 5"
        go_to(browser, "it was cold."), "the other half is still open on a new page"
        browser.press("4")
        go_to(browser, "Bye.")
        browser.press("1")
        all_saved(browser)
        assert browser.count("#done h3") == 1
    found = [
        (one.response[one.start : one.end], one.label, one.cut, len(one.made_of))
        for one in counting(tmp_path / "d.jsonl")
    ]
    assert found == [
        ("Dr. Moss 😀 met Mr. Reed.", RIGHT, "joined", 3),
        ("It rained and", WRONG, "split", 1),
        ("it was cold.", NONE, "split", 1),
        ("Bye.", RIGHT, None, 0),
    ]


@pytest.mark.parametrize("width", [375, 1300])
def test_the_sentence_is_in_view_in_a_long_answer(browser: Browser, tmp_path: Path, width: int) -> None:
    parts = [f"This is sentence {k} of a long answer about a river." for k in range(80)]
    question = "Tell me about the river. " * 200
    with serving(*one_answer(tmp_path, *parts, prompt=question), "--limit", 6) as server:
        browser.open(server.url, width=width, height=700)
        for _ in range(5):
            seen = browser.js(
                "const box = (name) => document.querySelector(name).getBoundingClientRect();"
                "const [card, here, decide] = ['.desk > section', '#here', '#decide'].map(box);"
                "return [Math.max(0, card.top), here.top, here.bottom, decide.top]"
            )
            assert seen == sorted(seen), "below the top of its card and above the buttons"
            browser.press("1")
        all_saved(browser)


def test_split_where_the_reviewer_has_clicked(browser: Browser, tmp_path: Path) -> None:
    with serving(*one_answer(tmp_path, "It rained 😀 and it was cold and dark.")) as server:
        browser.open(server.url)
        place = browser.js(
            "const range = document.createRange(), text = document.getElementById('here').firstChild;"
            "range.setStart(text, text.data.indexOf('cold') + 2); range.setEnd(text, text.data.indexOf('cold') + 3);"
            "const box = range.getBoundingClientRect(); return [box.left, box.top + box.height / 2]"
        )
        mouse = ActionBuilder(browser.driver)  # to a place of the page, wherever the tests before have left the mouse
        mouse.pointer_action.move_to_location(*map(round, place)).click()
        mouse.perform()
        browser.press("x", Keys.ENTER)
        assert now(browser) == "It rained 😀 and it was"


def test_by_touch_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    long = " ".join(["A word"] * 150)
    with serving(*one_answer(tmp_path, "It rained all day long.", long, "It is " + "x" * 300), "--blind", 0) as server:
        browser.open(server.url, width=375, height=667)
        assert browser.js("return document.documentElement.scrollWidth") <= 375
        buttons = (
            "return [...document.querySelectorAll('.choice')].map(b => [b.getBoundingClientRect(), b.textContent])"
        )
        for box, name in browser.js(buttons):
            assert box["width"] > 150, name
            assert box["height"] >= 44, name
            assert 0 <= box["top"] < box["bottom"] <= 667, "the labels are always in reach"
        go_to(browser, "It rained all day long.")
        browser.find("[data-key=x]").click()
        browser.js("document.querySelectorAll('#here .word')[0].click()")
        assert browser.text("#here span") == "It "
        ActionChains(browser.driver).click(browser.find("#splitting button:nth-child(3)")).perform()
        assert now(browser) == "It"
        for label in ("contradictory", "no_fact"):
            browser.find(f".choice[data-label={label}]").click()
        all_saved(browser)
        assert browser.js("return document.documentElement.scrollWidth") <= 375
    assert sorted(one.end - one.start for one in counting(tmp_path / "d.jsonl")) == [2, 20]


CONTRASTS = """
  const part = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => part(colour.startsWith('color(') ? +v : v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' && node.parentElement ? ground(node.parentElement) : colour; };
  return ['.choice', '#here', '.decide .plain', '.passage', '.verdict .reason'].map((name) => {
    const node = document.querySelector(name);
    const [low, high] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => x - y);
    return [name, (high + 0.05) / (low + 0.05)]; });
"""
"""The contrast of texts with what is behind them (WCAG 2.1)."""
UNNAMED = """
  const isUnnamed = (node) => !node.textContent.trim() && !node.ariaLabel && !node.labels?.length;
  return [...document.querySelectorAll('button, input, progress')].filter(isUnnamed);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_and_labels_do_not_rest_on_colour(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """The contrast of the text, and names for screen readers: every button has words, and progress and state speak."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    with serving(*one_answer(tmp_path, "One river.", "Two."), "--blind", 0) as server:
        browser.open(server.url)
        at_first(browser)
        contrasts = browser.js(CONTRASTS)
        assert all(contrast >= 4.5 for _, contrast in contrasts), contrasts
        assert browser.texts(".choice .glyph") == ["✓", "✕", "?", "–"]
        assert browser.texts(".choice .words") == ["Right", "Contradicted", "Not in the reference", "Nothing to check"]
        assert browser.js(UNNAMED) == []
        assert browser.find("#here").get_attribute("aria-current") == "true"
        assert browser.text("#now").startswith("Sentence: ")
        assert browser.find("#saved").get_attribute("role") == "status"
        browser.press("?")
        assert "Contradicted" in browser.text("#keys")
        browser.press(Keys.ESCAPE)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_judge_its_evidence_and_words_of_the_sentence_in_the_reference(browser: Browser, tmp_path: Path) -> None:
    passages = ["Nothing to see here.", "On a page about town number 0, the river\nMoss is 12 km long."]
    with serving(*one_answer(tmp_path, "The Moss is 15 km.", reference=passages), "--blind", 0) as server:
        browser.open(server.url)
        said = browser.text("#judge")
        for part in ("Contradicted", "confidence 0.50", "as it says", "town number 0"):
            assert part in said
        assert browser.texts(".passage mark") == ["town number 0"]
        assert browser.texts(".same") == ["Moss"], "underlined, whatever the judge says"
    with serving(
        *one_answer(tmp_path, "The Moss is 15 km.", reference=passages)[:-3], tmp_path / "b.jsonl", "--reviewer", "b"
    ) as server:
        browser.open(server.url)
        assert "Hidden: this sentence is decided blind." in browser.text("#judge")
        assert browser.count("mark:not(#here)") == 0
        assert browser.texts(".same") == ["Moss"]


def test_a_person_decides_between_reviewers(browser: Browser, tmp_path: Path) -> None:
    inputs = write_world(tmp_path, answers=2, sentences=3)
    files = [tmp_path / f"{name}.jsonl" for name in ("ben", "eva")]
    for file, key in zip(files, "12", strict=True):
        with serving(*inputs, "--out", file, "--reviewer", file.stem) as server:
            browser.open(server.url)
            browser.press("1", "1", key)
            all_saved(browser)
    out = tmp_path / "d.jsonl"
    against = ["--against", files[0], "--against", files[1]]
    with serving(*inputs, "--out", out, "--reviewer", "anna", "--queue", "disagreement", *against) as server:
        browser.open(server.url)
        assert count(browser) == "0 of 1"
        assert [browser.texts("#judge h4")[-2:], browser.texts("#judge .tag")[-2:]] == [
            ["ben", "eva"],
            ["✓Right", "✕Contradicted"],
        ]
        browser.press("2")
        all_saved(browser)
    (made,) = decisions(out)
    assert (made.queue, made.inclusion, made.adjudicates) == ("disagreement", None, ["ben", "eva"])


def test_a_person_decides_between_cuts_and_makes_gold_of_them(browser: Browser, tmp_path: Path) -> None:
    """Both reviewers say the same, one of them of two sentences at once."""
    inputs = one_answer(tmp_path, "One river.", "Two rivers.")[:3]
    files = [tmp_path / f"{name}.jsonl" for name in ("ben", "eva")]
    for file, keys in zip(files, ("j1", "11"), strict=True):
        with serving(*inputs, "--out", file, "--reviewer", file.stem) as server:
            browser.open(server.url)
            go_to(browser, "One river.")
            browser.press(*keys)
            all_saved(browser)
            assert browser.count("#done h3") == 1
    out, gold = tmp_path / "settled.jsonl", tmp_path / "gold.jsonl"
    against = ["--against", files[0], "--against", files[1]]
    with serving(*inputs, "--out", out, "--reviewer", "anna", "--queue", "disagreement", *against) as server:
        browser.open(server.url)
        assert count(browser) == "0 of 2"
        go_to(browser, "Two rivers.")
        assert browser.texts("#judge .cut") == ["of One river. Two rivers."]
        browser.press("1", "1")
        all_saved(browser)
    assert exit_code("gold", *files, out, "--out", gold) == 0
    (answer,) = read_records(gold, Annotation)
    assert [(one.start, one.end, one.label) for one in answer.sentences] == [(0, 10, RIGHT), (11, 22, RIGHT)]


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    bad = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
    (tmp_path / "n").mkdir()
    prompt = Prompt(id="p0", prompt=bad + "\u202e", reference=[bad + " town number 0 __proto__ constructor"], topic=bad)
    judge = JUDGE.model_copy(update={"name": bad})
    answer = annotation(0, [(bad + " __proto__ constructor.", WRONG, 0.5), ("Two.", RIGHT, 1.0)], judge=judge)
    sentences = [answer.sentences[0].model_copy(update={"reason": bad, "evidence": bad}), answer.sentences[1]]
    write_records(tmp_path / "prompts.jsonl", [prompt])
    write_records(tmp_path / "annotations.jsonl", [answer.model_copy(update={"sentences": sentences})])
    with serving(*words(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", bad, "--blind", 0) as server:
        browser.open(server.url)
        assert browser.js("return document.title") == "Review"
        assert browser.text("#question") == prompt.prompt
        assert browser.text("#sub").startswith(bad)
        assert bad in browser.text("#answer")
        assert browser.count("img") == 0
        browser.press("n")
        browser.press(bad, Keys.ENTER, "1")
        all_saved(browser)
        browser.press("1")
        all_saved(browser)
    assert bad in [one.note for one in decisions(tmp_path / "d.jsonl")]


def test_kill_9_in_the_middle_and_going_on(browser: Browser, tmp_path: Path) -> None:
    """What is decided while the server is dead is sent when it is there again, in order and once."""
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 20]
    with serving(*command) as server:
        browser.open(server.url)
        at_first(browser)
        browser.open(server.url)
        browser.press("1", "2")
        all_saved(browser)
        server.kill()
        seen = [now(browser)]
        browser.press("3")
        seen.append(now(browser))
        browser.press("4", "1")
        browser.until(lambda: "not saved yet: the server does not answer" in browser.text("#saved"))
        assert count(browser) == "5 of 20", "the reviewer does not wait"
        browser.press("u")
    assert len(decisions(out)) == 2
    with serving(*command) as server:
        browser.driver.switch_to.new_window("tab")
        tabs = browser.driver.window_handles
        browser.open(server.url)
        all_saved(browser)
        browser.until(lambda: count(browser) == "4 of 20")
        browser.press("2")
        all_saved(browser)
        browser.driver.close()
        browser.driver.switch_to.window(tabs[0])
        browser.js("window.dispatchEvent(new Event('focus'))")
        all_saved(browser)
        browser.until(lambda: count(browser) == "5 of 20")
    assert all("ERR_CONNECTION" in line or "401" in line for line in browser.complaints())
    made = decisions(out)
    assert len({one.id for one in made}) == len(made)
    assert [one.label for one in made if one.act == "label"][:5] == [RIGHT, WRONG, OPEN, NONE, RIGHT]
    assert [one.response[one.start : one.end] for one in made[2:4]] == seen
    assert [one.label for one in counting(out)] == [RIGHT, WRONG, OPEN, NONE, WRONG]


def test_beyond_what_was_loaded_the_page_waits_for_the_server_and_goes_on(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path, answers=30, sentences=1), "--out", out, "--reviewer", "anna"]
    with serving(*command) as server:
        browser.open(server.url)
        browser.press("1")
        all_saved(browser)
        server.kill()
        for _ in range(20):
            browser.press("4")
        browser.until(lambda: "The next sentence cannot be loaded yet" in browser.text("#told"))
        decided = int(count(browser).split()[0])
        assert 8 <= decided < 21, "what was loaded ahead could be decided"
    with serving(*command) as server:
        token = "localStorage.setItem('maskdpo-review-token', arguments[0])"
        browser.js(token, server.token)  # as the tab does that the command opens
        all_saved(browser)
        browser.until(lambda: not browser.text("#told"))
        browser.press("2")
        all_saved(browser)
    browser.complaints()
    assert [one.label for one in counting(out)] == [RIGHT, *[NONE] * (decided - 1), WRONG]


def test_a_page_without_the_token_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with serving(*write_world(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "anna") as server:
        browser.driver.get(server.address)
        at_first(browser)
        browser.driver.get(server.address)
        browser.until(lambda: browser.js("return document.documentElement.dataset.ready") == "failed")
        assert "open the address that the command printed" in browser.text("#told")
        assert browser.js("return document.getElementById('desk').hidden")
        assert all("401" in line for line in browser.complaints())


def test_two_tabs_of_one_reviewer(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 10) as server:
        browser.open(server.url)
        first = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("tab")
        browser.open(server.url)
        second = browser.driver.current_window_handle
        sentence = now(browser)
        browser.press("1")
        all_saved(browser)
        browser.driver.switch_to.window(first)
        browser.until(lambda: count(browser) == "1 of 10")
        assert now(browser) != sentence, "the tab that comes to the front knows what the other has decided"
        browser.driver.switch_to.window(second)
        browser.driver.close()
        browser.driver.switch_to.window(first)
    assert len(decisions(out)) == 1


def test_two_tabs_that_a_dead_server_leaves_alone_keep_their_decisions(browser: Browser, tmp_path: Path) -> None:
    """Both tabs are closed before the server is there again: a third one sends what each of them has kept."""
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 10]
    driver, seen = browser.driver, []
    with serving(*command) as server:
        browser.open(server.url)
        at_first(browser)
        tabs = [driver.current_window_handle]
        for _ in range(2):
            driver.switch_to.new_window("tab")
            browser.open(server.url)
            tabs.append(driver.current_window_handle)
        for _ in range(3):
            browser.press(Keys.ARROW_RIGHT)
        server.kill()
        for tab, key in ((tabs[2], "2"), (tabs[1], "1"), (tabs[2], "3"), (tabs[1], "4")):
            driver.switch_to.window(tab)
            seen.append((now(browser), KEYS[key]))
            browser.press(key)
        for tab in tabs[1:]:
            driver.switch_to.window(tab)
            driver.get("about:blank")  # leaves the page, as a browser that is ended does
            driver.close()
        driver.switch_to.window(tabs[0])
    assert len({sentence for sentence, _ in seen}) == 4
    with serving(*command) as server:
        browser.open(server.url)
        all_saved(browser)
        assert count(browser) == "4 of 10"
        assert browser.js("return Object.keys(localStorage).filter((key) => key.includes('unsent'))") == []
    browser.complaints()
    assert [(one.response[one.start : one.end], one.label) for one in decisions(out)] == seen


FILL = """
  let n = 0;
  for (let size = 1 << 22; size; size >>= 1)
    try { for (;;) { localStorage.setItem(`fill ${n}`, 'x'.repeat(size)); n++; } } catch {}
"""


def test_a_browser_that_cannot_keep_decisions_says_so(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 10]
    with serving(*command) as server:
        browser.open(server.url)
        at_first(browser)
        server.kill()
        browser.press("1")
        browser.until(lambda: "not saved yet" in browser.text("#saved"))
        assert "cannot keep" not in browser.text("#saved")
        browser.js(FILL)
        browser.press("2")
        assert "its storage is full or forbidden: leave this page open" in browser.text("#saved")
        at_first(browser)
        browser.until(lambda: "cannot keep" not in browser.text("#saved"))
    with serving(*command) as server:
        browser.js("location.hash = arguments[0]", server.token)  # the new address, opened in the same tab
        browser.until(lambda: browser.text("#saved") == "all saved")
        assert browser.js("return location.href") == server.address
    browser.complaints()
    assert [one.label for one in decisions(out)] == [RIGHT, WRONG]


def test_an_act_that_makes_no_sense_is_given_up_and_the_others_are_saved(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 10]
    with serving(*command) as server:
        browser.open(server.url)
        at_first(browser)
        server.kill()
        browser.press("1")
        browser.js(
            "const [key] = Object.keys(localStorage), name = key.slice(0, -32), act = JSON.parse(localStorage[key]);"
            "for (const [i, bad] of [{...act, note: 5}, {...act, l: 'perfect'}, 5].entries())"
            "  localStorage[name + String(i).repeat(32)] = JSON.stringify(bad);"
            "localStorage[name + 'a'.repeat(32)] = '{';"
        )
        browser.driver.get("about:blank")
    with serving(*command) as server:
        browser.open(server.url)
        all_saved(browser)
        assert browser.text("#told").startswith("A decision was not kept: note: ")
        browser.press("2")
        all_saved(browser)
        assert browser.js("return Object.keys(localStorage).filter((key) => key.includes('unsent'))") == []
    browser.complaints()
    assert [one.label for one in decisions(out)] == [RIGHT, WRONG]


def decide(server: Serving, browser: Browser, key: str, times: int) -> None:
    browser.open(server.url)
    browser.press(*key * times)
    all_saved(browser)


def test_two_reviewers_in_one_file(browser: Browser, tmp_path: Path) -> None:
    out, inputs = tmp_path / "d.jsonl", write_world(tmp_path)
    with (
        serving(*inputs, "--out", out, "--reviewer", "anna") as anna,
        serving(*inputs, "--out", out, "--reviewer", "ben") as ben,
    ):
        decide(anna, browser, "1", 3)
        decide(ben, browser, "2", 2)
        assert count(browser) == "2 of 60", "nobody sees what the other has decided"
        decide(anna, browser, "1", 1)
        assert count(browser) == "4 of 60"
    assert [(one.reviewer, one.label) for one in counting(out)] == [("anna", RIGHT)] * 3 + [("ben", WRONG)] * 2 + [
        ("anna", RIGHT)
    ]
    assert [one.start for one in counting(out)[:2]] == [one.start for one in counting(out)[3:5]]
