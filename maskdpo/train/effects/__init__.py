"""``maskdpo side-effects``: what a training has changed in answers that it was not about."""
