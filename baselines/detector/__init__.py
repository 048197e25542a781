"""The error rates of decision rules (of imgbench and of other tools), on recorded processes and on models of noise."""
