"""The detector is measured: decision rules, ours and other tools', on recorded blocks and on models of noise."""
