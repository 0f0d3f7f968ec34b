"""Records beside outputs: what they never hold, what strangers may read of them, and records of other versions."""

import json
import shlex
from pathlib import Path

import pytest

from maskdpo.errors import InputError
from maskdpo.redact import line_without_paths, line_without_secrets, without_paths, without_secrets
from maskdpo.run_record import SCHEMA_VERSION, meta_file, read_meta
from maskdpo.stage_run import Run, invoked_as

# --- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://h/v1", "https://h/v1"),
        ("https://u:SECRET@h:80/v1", "https://h:80/v1"),
        ("https://u:SEC@RET@h/v1", "https://h/v1"),
        ("https://u:S'E\"CRET@h", "https://h"),
        ("https://SECRET@h?api_key=SECRET&SECRET", "https://h?api_key=***&***"),
        ("https://h/v1?a=SECRET&b=SECRET#top", "https://h/v1?a=***&b=***"),
        ("https://h/@me/v1", "https://h/@me/v1"),
        ("hub:user/name@main", "hub:user/name@main"),
        ("Is a@b right? a=b", "Is a@b right? a=b"),
    ],
)
def test_urls_lose_their_secrets(url: str, clean: str) -> None:
    assert without_secrets(url) == clean == without_secrets(clean)
    line = shlex.join(["maskdpo", "annotate", "--api-base", url, "--stop", "a b\n"])
    assert shlex.split(line_without_secrets(line)) == ["maskdpo", "annotate", "--api-base", clean, "--stop", "a b\n"]


def test_a_record_holds_no_secrets_nor_gives_those_of_old_records(tmp_path: Path) -> None:
    url, file = "https://u:SEC@RET@h/v1?key=SECRET", meta_file(tmp_path / "out.jsonl")
    with invoked_as(f"maskdpo annotate --api-base '{url}'", {"api_base": url, "stop": [url]}):
        Run(file, "annotate", {}, {}, restart="").begin()
    assert "RET" not in file.read_text()
    file.write_text(file.read_text().replace("https://h/v1?key=***", url))
    meta = read_meta(file)
    assert meta is not None
    assert "RET" not in meta.model_dump_json()
    assert meta.arguments == {"api_base": "https://h/v1?key=***", "stop": ["https://h/v1?key=***"]}


# --- what strangers may read ---------------------------------------------------------------------


def test_of_an_absolute_path_the_last_part_is_shown() -> None:
    options = {"model": "/data/models/small", "stop": ["</s>", "/end", "//", "/a/b\n"], "n": 4, "protocol": "~/my/own"}
    shown = {"model": "small", "stop": ["</s>", "/end", "//", "/a/b\n"], "n": 4, "protocol": "own"}
    assert without_paths(options) == shown
    line = "maskdpo sample /home/me/a.jsonl --model '/data/my models/small' --out=/tmp/x/o.jsonl --temperature 0.7"
    assert line_without_paths(line) == "maskdpo sample a.jsonl --model small --out=o.jsonl --temperature 0.7"
    for path, last in (
        ("/home/me/x", "x"),
        ("~/a/x", "x"),
        ("~me/a/x", "x"),
        ("/home/a=b/x", "x"),
        ("/home/me/a b", "a b"),
    ):
        for before in ("", "path=", "a=b=", "--out=", "--template-option=path=", "-o"):
            line = shlex.join(["maskdpo", "--template-option", before + path])
            assert shlex.split(line_without_paths(line))[-1] == before + last
    for url in ("file:///home/me/q", "file://host/home/me/q", "file:/home/me/q"):
        assert without_paths([url, f"path={url}"]) == ["q", "path=q"]
        assert line_without_paths(f"maskdpo -o{url}") == "maskdpo -oq"
    for kept in ("https://h/v1/x", "hub:me/facts", "a/b/c", "--temperature=0.5", "-n4", "-f", "1/2=3/4/5", "</a/b>"):
        assert line_without_paths(kept) == shlex.quote(kept)
    assert line_without_paths("an 'open quote") == "an 'open quote"


# --- records of other versions -------------------------------------------------------------------


def test_fields_of_a_later_version_are_let_pass_and_no_others(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {"n": 1}, {}, restart="").begin()
    written = json.loads(file.read_text())
    assert written["schema_version"] == SCHEMA_VERSION
    for version, extra, fine in (
        (SCHEMA_VERSION, {}, True),
        (SCHEMA_VERSION, {"colour": 1}, False),
        (SCHEMA_VERSION + 1, {"colour": 1}, True),
        (None, {}, True),  # version 1 did not say so
        (None, {"colour": 1}, False),
    ):
        record = written | {"schema_version": version} | extra
        file.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
        if not fine:
            with pytest.raises(InputError, match="is not a record of a maskdpo run"):
                read_meta(file)
            continue
        meta = read_meta(file)
        assert meta is not None
        assert meta.options == {"n": 1}
        assert meta.schema_version == (version or 1)
        run = Run(file, "sample", {"n": 1}, {}, restart="")
        assert run.previous == meta
    run.begin()
    assert json.loads(file.read_text())["schema_version"] == SCHEMA_VERSION
