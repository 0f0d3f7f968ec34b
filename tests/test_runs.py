"""The record beside an output, and what becomes of outputs that are begun anew."""

from pathlib import Path

from maskdpo.runs import set_aside


def test_every_earlier_output_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text(str(i))
        set_aside(folder)
    kept = {path.name: (path / "config.json").read_text() for path in tmp_path.iterdir()}
    assert kept == {"model.bak": "0", "model.bak2": "1", "model.bak3": "2"}
