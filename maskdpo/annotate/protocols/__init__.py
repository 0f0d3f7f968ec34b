"""How an LLM judge is asked: folders of templates. See docs/judges.md."""
