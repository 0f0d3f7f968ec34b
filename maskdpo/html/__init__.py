"""Pages in one file: the parts that all of them share."""
