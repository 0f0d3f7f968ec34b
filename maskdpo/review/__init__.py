"""``maskdpo review``: people decide sentences on a page of this machine."""
