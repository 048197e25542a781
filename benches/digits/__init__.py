"""The embedded `digits` models: real scans, a trained classifier and two trained generators, nothing to download.

`data` has the scans and their split, `models` the architectures and their loading, `prompts` the prompts, `quality` the
quality metrics, and `evaluate` the table of their results. `train` trains all stored weights again:

    python -m benches.digits.train
    python -m benches.digits.evaluate
"""
