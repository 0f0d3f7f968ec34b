"""``maskdpo train --push``: the folder of a trained model as one commit on the Hugging Face Hub."""

from pathlib import Path

from maskdpo.hub.push import push_model as push_files
from maskdpo.run_folder import published


def push_model(folder: Path, repo: str) -> str:
    """Send the files of a run (``hub.push.push_model``). Returns the URL of the commit."""
    return push_files(repo, published(folder), "Model and card, with maskdpo train")
