"""The rule that decides paired runs: from pairs of fresh processes of base and head to verdicts. It does no input or
output."""
