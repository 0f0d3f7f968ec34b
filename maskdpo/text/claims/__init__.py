"""Reading claims without a model: names, numbers and dates, each with the words that say what is claimed."""
