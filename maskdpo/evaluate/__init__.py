"""Factuality of answers, agreement with gold labels, and the pages that show them."""
