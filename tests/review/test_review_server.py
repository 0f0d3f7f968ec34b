"""``maskdpo review`` as a process on loopback: what it tells, what it writes, whom it refuses, and that it goes on."""

import html
import itertools
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code
from review_world import RIGHT, WRONG, Serving, annotation, decisions, serving, towns, words, write_world

from maskdpo.io import write_records
from maskdpo.schemas import Prompt
from maskdpo.verdicts.people import read_decisions, standing

pytestmark = pytest.mark.slow
pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'maskdpo[review]'")


def act(item: int, start: int, end: int, label: str | None = "no_hallucination", **more: Any) -> dict[str, Any]:
    kind = "label" if label else "skip"
    return {"id": secrets.token_hex(16), "act": kind, "item": item, "start": start, "end": end, "label": label} | more


def undo(of: dict[str, Any]) -> dict[str, Any]:
    return act(of["item"], of["start"], of["end"], None, act="undo", undoes=of["id"])


def places(server: Serving) -> list[tuple[int, int, int]]:
    """Item, start and end of every sentence of the queue."""
    return [(item, begin, end) for item, (_, begin, end) in enumerate(server.ask("api/start")[1]["items"])]


def tell(server: Serving, *acts: dict[str, Any], since: int = 0) -> dict[str, Any]:
    run = server.ask("api/start")[1]["run"]
    status, reply = server.ask("api/acts", {"run": run, "acts": acts, "since": since})
    assert status == 200, reply
    return reply


def test_a_decision_says_all_that_is_known_of_it(tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(
        *write_world(tmp_path), "--out", out, "--reviewer", "anna", "--queue", "stratified", "--limit", 20, "--blind", 0
    ) as server:
        item, begin, end = places(server)[0]
        tell(server, act(item, begin, end, "unverifiable", note="no such river", seconds=4.26, ago=3600))
        counts = server.end()
    (made,) = decisions(out)
    judged = {one.id: one for one in towns(12)[1]}[made.answer_id]
    (sentence,) = [one for one in judged.sentences if one.start == begin]
    assert counts == 0
    assert (made.start, made.end, made.response, made.prompt_id) == (begin, end, judged.response, judged.prompt_id)
    assert (made.label, made.note, made.seconds, made.act) == ("unverifiable", "no such river", 4.3, "label")
    assert (made.judged, made.judged_confidence, made.judge) == (sentence.label, sentence.confidence, judged.judge)
    assert (made.shown, made.queue, made.inclusion, made.made_of) == (True, "stratified", 5 / 15, [])
    assert made.topic == f"t{int(made.answer_id[1:]) // 2}"
    assert made.at is not None
    meta = json.loads((tmp_path / "d.jsonl.meta.json").read_text())
    assert (meta["command"], meta["status"]) == ("review", "complete")
    assert meta["counts"] == {"reviewers": 1, "right": 0, "wrong": 1, "no_fact": 0, "skipped": 0, "left": 19}


def test_what_the_judge_says_of_a_blind_sentence_never_reaches_the_page(tmp_path: Path) -> None:
    prompts, _ = towns(2)
    answers = [annotation(0, [("One.", WRONG, 0.625), ("Two.", WRONG, 0.625)]), annotation(1, [("Six.", WRONG, 0.625)])]
    write_records(tmp_path / "prompts.jsonl", prompts)
    write_records(tmp_path / "annotations.jsonl", answers)
    with serving(*words(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "a") as server:
        told = [json.dumps(server.ask(path)[1]) for path in ("api/start", "api/answers/0", "api/answers/1")]
        tell(server, *(act(*place) for place in places(server)))
        told.append(json.dumps(server.ask("api/start")[1]))
    assert not any(word in text for text in told for word in ("0.625", "contradictory", '"ev"', "as it says"))
    assert [one.shown for one in decisions(tmp_path / "d.jsonl")] == [False] * 3


def test_acts_are_there_once_in_order_and_undone(tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna") as server:
        one, two, three, *_ = places(server)
        first, second, skipped = act(*one), act(*two, "no_fact"), act(*three, None)
        assert tell(server, first, second)["saved"] == [first["id"], second["id"]]
        again = tell(server, second, undo(second), skipped, since=2)
        assert again["saved"][0] == second["id"], "what was sent again after a lost reply is not written again"
        assert [one["act"] for one in again["acts"]] == ["undo", "skip"]
        refused = tell(server, undo(second), since=4)
        assert list(refused["refused"].values()) == ["the decision that it takes back is undone already"]
    assert [(one.id, one.act) for one in decisions(out)][:2] == [(first["id"], "label"), (second["id"], "label")]
    assert [one.id for one in standing(decisions(out))] == [first["id"], skipped["id"]]
    stamps = [one.at for one in decisions(out)]
    assert stamps == sorted(stamps)  # type: ignore[type-var]


def test_two_pages_of_one_reviewer_do_not_decide_twice(tmp_path: Path) -> None:
    with serving(*write_world(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "anna") as server:
        place = places(server)[0]
        here, there = act(*place), act(*place, "no_fact")
        tell(server, here)
        reply = tell(server, there)
        assert reply["refused"] == {there["id"]: "the sentence was decided on another page meanwhile"}
        assert [one["id"] for one in reply["acts"]] == [here["id"]], "the other page learns what was decided"
        assert tell(server, there | {"known": [here["id"]]})["saved"], "who knows it may decide anew"
    assert [one.id for one in standing(decisions(tmp_path / "d.jsonl"))] == [there["id"]]


def test_an_act_that_makes_no_sense_does_not_keep_the_others_back(tmp_path: Path) -> None:
    bad = {"reviewer": "ben", "label": "perfect", "seconds": None, "note": "half a character: \ud83d", "act": None}
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna") as server:
        one, two, three, *_ = places(server)
        wrong = [act(*two) | {"id": "short"}, *(act(*two) | {name: value} for name, value in bad.items())]
        before, after = act(*one), act(*three)
        reply = tell(server, before, *wrong, after)
        assert reply["saved"] == [before["id"], after["id"]]
        assert list(reply["refused"]) == [each["id"] for each in wrong]
        assert [why.split(":")[0] for why in reply["refused"].values()] == ["id", *bad]
    assert [one.id for one in decisions(out)] == [before["id"], after["id"]]


def test_a_clock_that_was_set_meanwhile_costs_no_decision(tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna") as server:
        one, two, three, *_ = places(server)
        reply = tell(server, act(*one, ago=1e300), act(*two, ago=-5, seconds=-1), act(*three, seconds=1e300))
        assert (len(reply["saved"]), reply["refused"]) == (3, {})
    first, second, third = decisions(out)
    assert first.at is not None
    assert second.at is not None
    assert (second.at - first.at).days == 365
    assert (second.seconds, third.seconds) == (0, 365 * 24 * 3600)


def test_nothing_is_known_of_the_label_of_a_neighbour_that_a_sentence_is_joined_with(tmp_path: Path) -> None:
    """The page has shown, or hidden, the label of the sentence that it asked about, and of no other."""
    parts = [("Dr.", WRONG, 0.5), ("Moss met the mayor of the town.", RIGHT, 0.5)]
    for blind in (0, 1):
        folder = tmp_path / str(blind)
        folder.mkdir()
        write_records(folder / "prompts.jsonl", [Prompt(id="p0", prompt="?")])
        write_records(folder / "annotations.jsonl", [annotation(0, parts)])
        out = folder / "d.jsonl"
        with serving(*words(folder), "--out", out, "--reviewer", "anna", "--blind", blind) as server:
            (short, begin, _) = next(place for place in places(server) if place[1] == 0)
            long = 1 - short
            joined = act(short, begin, 35)
            tell(server, joined)
            tell(server, act(long, begin, 35, known=[joined["id"]]))
        first, second = decisions(out)
        assert (first.judged, first.shown) == (RIGHT, None), "the page was at the short sentence, which is wrong"
        assert (second.judged, second.shown) == (RIGHT, blind == 0)


def test_who_ends_first_does_not_record_what_the_others_go_on_with(tmp_path: Path) -> None:
    """The record has the counts of the file, by whomever, and no hash of a file that grows."""
    out, record = tmp_path / "d.jsonl", tmp_path / "d.jsonl.meta.json"
    command = [*write_world(tmp_path), "--out", out]
    with serving(*command, "--reviewer", "anna") as anna, serving(*command, "--reviewer", "ben") as ben:
        one, two, three, *_ = places(anna)
        tell(anna, act(*one))
        tell(ben, act(*one, "no_fact"), act(*two, "no_fact"))
        assert anna.end() == 0
        meta = json.loads(record.read_text())
        assert (meta["counts"]["right"], meta["counts"]["no_fact"]) == (1, 2)
        tell(ben, act(*three, None))
        assert exit_code("lineage", out) == 0, "nothing has changed behind the back of anybody"
        assert ben.end() == 0
    meta = json.loads(record.read_text())
    assert meta["counts"] == {"reviewers": 2, "right": 1, "wrong": 0, "no_fact": 2, "skipped": 1, "left": 59 + 57}
    assert meta["outputs"] == {}
    assert exit_code("lineage", out) == 0


def test_joined_and_split_sentences_have_valid_spans_and_say_what_they_were_made_of(tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    with serving(*write_world(tmp_path), "--out", out, "--reviewer", "anna", "--limit", 60) as server:
        all_places = places(server)
        items = server.ask("api/start")[1]["items"]
        i = next(item for item, begin, _ in all_places if begin == 7)
        number = items[i][0]
        text = server.ask(f"api/answers/{number}")[1]["t"]
        spans = sorted((b, e) for a, b, e in items if a == number)
        (b1, e1), (b2, e2), (b3, e3), *_ = spans
        cut = text.index("that", b3)
        j = items.index([number, b3, e3])
        tell(server, act(i, b1, e2 + 1, "contradictory"), act(j, b3, cut), act(j, cut, e3, "no_fact"))
        bad = [act(i, b1, 10_000), act(i, b3, e3), act(i, e1, b2), act(999, 0, 3), act(j, cut, cut)]
        reply = tell(server, *bad)
        assert sorted(reply["refused"]) == sorted(one["id"] for one in bad)
    joined, first, second = decisions(out)
    assert (joined.start, joined.end, joined.cut) == (b1, e2, "joined")
    assert [(part.start, part.end) for part in joined.made_of] == [(b1, e1), (b2, e2)]
    assert text[first.start : first.end] + " " + text[second.start : second.end] == text[b3:e3]
    assert {first.cut, second.cut} == {"split"}
    assert joined.inclusion == first.inclusion == 1.0


def test_a_reviewer_goes_on_after_kill_9_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "d.jsonl"
    command = [*write_world(tmp_path), "--out", out, "--reviewer", "anna"]
    with serving(*command) as server:
        address = server.address
        first, second, third, *_ = [act(*place) for place in places(server)]
        tell(server, first, second)
        server.kill()
    with out.open("ab") as file:
        file.write(b'{"id":"torn","prompt_')
    with serving(*command) as server:
        assert server.address == address, "a page that is still open finds the server again"
        assert [one["id"] for one in server.ask("api/start")[1]["acts"]] == [first["id"], second["id"]]
        assert any("dropped an unfinished last line" in line for line in server.said)
        tell(server, second, third)
        assert server.end(signal.SIGTERM) == 0
    assert json.loads((tmp_path / "d.jsonl.meta.json").read_text())["status"] == "complete"
    assert [one.id for one in decisions(out)] == [first["id"], second["id"], third["id"]]


def test_two_reviewers_write_to_one_file_at_once(tmp_path: Path) -> None:
    out, inputs = tmp_path / "d.jsonl", write_world(tmp_path)
    with (
        serving(*inputs, "--out", out, "--reviewer", "anna") as anna,
        serving(*inputs, "--out", out, "--reviewer", "ben") as ben,
    ):
        assert anna.address != ben.address
        assert places(anna) == places(ben), "the same queue"

        def decide(server: Serving) -> None:
            for place in places(server)[:40]:
                tell(server, act(*place))

        with ThreadPoolExecutor(2) as both:
            list(both.map(decide, (anna, ben)))
        assert len(anna.ask("api/start")[1]["acts"]) == 40
    found = read_decisions([out])
    assert [sum(one.reviewer == name for one in standing(found)) for name in ("anna", "ben")] == [40, 40]
    assert len(found) == 80


def refused_words(arguments: Iterable[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert exit_code("review", *arguments, "--no-browser") == 2
    return " ".join(capsys.readouterr().err.split())


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = write_world(tmp_path), tmp_path / "d.jsonl"
    command = [*inputs, "--out", out, "--reviewer", "anna"]
    with serving(*command) as server:
        assert "another maskdpo run is writing to it" in refused_words(command, capsys)
        taken = server.address.split(":")[2].strip("/")
        other = [*inputs, "--out", tmp_path / "o.jsonl", "--reviewer", "anna"]
        assert "Address already in use" in refused_words([*other, "--port", taken], capsys)
    assert "another one (queue: 'random' -> 'uncertain'" not in refused_words(
        [*command, "--queue", "uncertain"], capsys
    )
    assert "use another `out`" not in refused_words([*command, "--limit", "7"], capsys), "options have their flags"
    assert "limit: 100 -> 7" in refused_words([*command, "--limit", "7"], capsys)
    assert "go together" in refused_words([*other, "--queue", "disagreement"], capsys)
    assert "is an input of this command" in refused_words([*inputs, "--out", inputs[0], "--reviewer", "a"], capsys)
    (tmp_path / "mine.jsonl").write_text("{}\n")
    assert "no record says" in refused_words([*inputs, "--out", tmp_path / "mine.jsonl", "--reviewer", "a"], capsys)
    parquet = [*inputs, "--out", tmp_path / "d.parquet", "--reviewer", "a"]
    assert "which Parquet cannot: name it d.jsonl" in refused_words(parquet, capsys)
    assert not list(tmp_path.glob("d.parquet*"))
    write_records(tmp_path / "annotations.jsonl", towns(3)[1])
    assert "the annotations file has changed" in refused_words(command, capsys)


def test_the_package_that_is_missing_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from maskdpo.cli import main; main()"
    arguments = ["review", *write_world(tmp_path), "--out", str(tmp_path / "d"), "--reviewer", "a"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "pip install 'maskdpo[review]'" in " ".join(run.stderr.split())


# --- who may ask -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Serving]:
    folder = tmp_path_factory.mktemp("served")
    with serving(*write_world(folder), "--out", folder / "d.jsonl", "--reviewer", "anna") as running:
        yield running
        assert not (folder / "d.jsonl").exists(), "nothing of what was refused is written"


def test_the_page_is_open_and_holds_nothing(server: Serving) -> None:
    status, page = server.ask("", x_maskdpo_token="", origin="")
    assert status == 200
    assert "anna" not in page
    assert "town" not in page
    assert server.token not in page
    policy = html.unescape(page.split('content="')[1].split('"')[0])
    for part in ("default-src 'none'", "connect-src 'self'", "require-trusted-types-for 'script'"):
        assert part in policy


@pytest.mark.parametrize("path", ["api/start", "api/answers/0", "api/acts"])
@pytest.mark.parametrize("token", ["", "x" * 32, "ö"])
def test_without_the_token_nothing_is_told(server: Serving, path: str, token: str) -> None:
    body = {"run": "", "acts": [], "since": 0} if path == "api/acts" else None
    status, reply = server.ask(path, body, x_maskdpo_token=token.encode().decode("latin-1"))
    assert status == 401
    assert "open the address that the command printed" in reply["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:80"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "192.168.0.7"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://127.0.0.1"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_a_forged_host_or_origin_is_refused_even_with_the_token(
    server: Serving, headers: dict[str, str], status: int
) -> None:
    run = server.ask("api/start")[1]["run"]
    body = {"run": run, "acts": [act(*places(server)[0])], "since": 0}
    assert server.ask("api/acts", body, **headers)[0] == status


def test_a_tunnel_may_have_another_port(server: Serving) -> None:
    assert server.ask("api/start", host="localhost:9000", origin="http://localhost:9000")[0] == 200
    assert server.ask("api/start", host="localhost:9000", origin="http://localhost:9001")[0] == 403


def test_bad_bodies_are_refused(server: Serving) -> None:
    run = server.ask("api/start")[1]["run"]
    good = act(*places(server)[0])
    for body, status in [
        (b"{", 422),
        (b"[" * 100_000, 422),
        (b'{"run": "\xff"}', 422),
        ({"run": run, "acts": ["act"], "since": 0}, 422),
        ({"run": run, "acts": [{}], "since": 0}, 422),
        ({"run": run, "acts": [], "since": -1}, 422),
        ({"run": "other", "acts": [good], "since": 0}, 409),
    ]:
        assert server.ask("api/acts", body)[0] == status, body
    with socket.create_connection(("127.0.0.1", int(server.address.split(":")[2].strip("/")))) as client:
        lines = ["POST /api/acts HTTP/1.1", "host: localhost", "origin: http://localhost", "content-length: 2000001"]
        client.sendall("\r\n".join([*lines, f"x-maskdpo-token: {server.token}", "", ""]).encode())
        assert client.recv(99).startswith(b"HTTP/1.1 413"), "it is refused before it is sent"
    assert server.ask("api/answers/99")[0] == 404
    assert server.ask("api/answers/0/../../../../etc/passwd")[0] == 404


def test_every_reply_has_the_headers_of_the_policy(server: Serving) -> None:
    import urllib.request

    for path in ("", "favicon.ico", "nothing"):
        request = urllib.request.Request(server.address + path)
        try:
            headers = urllib.request.urlopen(request).headers
        except urllib.error.HTTPError as error:
            headers = error.headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_it_listens_to_this_machine_only_unless_it_is_told_to(tmp_path: Path, server: Serving) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    port = int(server.address.split(":")[2].strip("/"))
    for address in itertools.islice(others, 1):
        with socket.socket() as client:
            client.settimeout(2)
            assert client.connect_ex((address, port)) != 0
    assert not any("opens the page" in line for line in server.said)
    command = [*write_world(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "ben", "--host", "0.0.0.0"]
    with serving(*command) as open_to_all:
        assert "opens the page to other machines" in " ".join(open_to_all.said)
        assert open_to_all.ask("api/start", host="192.168.0.7:5", origin="http://192.168.0.7:5")[0] == 200
        assert open_to_all.ask("api/start", host="evil.example", origin="http://evil.example")[0] == 421


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only one address of the loopback")
def test_the_printed_address_is_answered_at_whatever_host_it_listens(tmp_path: Path) -> None:
    command = [*write_world(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "anna", "--host"]
    with serving(*command, "127.0.0.2") as other:
        assert other.address.startswith("http://127.0.0.2:")
        assert other.ask("api/start")[0] == 200
        assert other.ask("api/start", host="192.168.0.7", origin="http://192.168.0.7")[0] == 421
    with serving(*command, "0.0.0.0") as every:
        assert every.address.startswith(f"http://{socket.gethostname().lower()}:"), "no browser can open 0.0.0.0"
        for name in (socket.gethostname(), socket.getfqdn(), "localhost"):
            assert every.ask("api/start", host=f"{name}:5", origin=f"http://{name}:5")[0] == 200
        assert every.ask("api/start", host="evil.example", origin="http://evil.example")[0] == 421


def test_the_judge_may_be_silent_and_the_text_strange(tmp_path: Path) -> None:
    """Failed verdicts, a prompt without a reference, and texts that are no markup."""
    write_records(tmp_path / "prompts.jsonl", [Prompt(id="p0", prompt="</script><img src=x onerror=alert(1)>")])
    write_records(
        tmp_path / "annotations.jsonl", [annotation(0, [("😀 \u2028<b>one</b>.", None, None), ("Two.", RIGHT, 1.0)])]
    )
    with serving(*words(tmp_path), "--out", tmp_path / "d.jsonl", "--reviewer", "<i>", "--blind", 0) as server:
        told = server.ask("api/answers/0")[1]
        assert (told["ref"], told["q"]) == ([], "</script><img src=x onerror=alert(1)>")
        tell(server, *(act(*place) for place in places(server)))
    made = {one.start: one for one in decisions(tmp_path / "d.jsonl")}
    assert (made[0].judged, made[0].shown, made[0].reviewer) == (None, False, "<i>")
    assert made[15].shown
