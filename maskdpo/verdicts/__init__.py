"""What verdicts are worth: labels out of scores, and scores beside gold labels. Shared by several stages."""
