"""``maskdpo ground``: references for prompts, out of documents."""
