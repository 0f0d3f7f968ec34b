"""The record beside an output, and what becomes of outputs that are begun anew."""

import shlex
from pathlib import Path

import pytest

from maskdpo.runs import Run, invoked_as, line_without_secrets, meta_file, read_meta, set_aside, without_secrets


def test_every_earlier_output_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text(str(i))
        set_aside(folder)
    kept = {path.name: (path / "config.json").read_text() for path in tmp_path.iterdir()}
    assert kept == {"model.bak": "0", "model.bak2": "1", "model.bak3": "2"}


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
