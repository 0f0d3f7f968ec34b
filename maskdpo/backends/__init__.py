"""Text generation behind one protocol (``base.Backend``), for ``sample`` and for LLM judges."""
