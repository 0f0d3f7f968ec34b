"""Texts as every stage sees them: sentences, claims, passages of references, the language."""
