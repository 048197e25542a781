"""The paired rule, for base and head measured in one run in pairs of fresh processes. Pure: pairs in, verdicts out."""
