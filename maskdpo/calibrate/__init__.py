"""``maskdpo calibrate``: how far scores can be trusted, and how labels follow from them, by gold labels."""
