"""``maskdpo train-judge``: a judge of one's own out of labelled sentences."""
