"""Other tools' formats: one small module each, from or to our records; ``transfer`` reads and writes the files."""

NOT_JUDGED = "not_judged"
"""What a sentence without a verdict is called where a format needs a name."""
