"""``maskdpo run``: all stages out of one file. It knows the commands only by the functions that it is given."""
