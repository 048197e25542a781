"""The embedded `digits` models: real scans, a trained classifier and two trained generators, nothing to download.

`data` holds the scans and their split, `models` the architectures and their loading, `prompts` the prompts, `quality`
the quality metrics and `evaluate` their table. `train` makes all stored weights again:

    python -m benches.digits.train
    python -m benches.digits.evaluate
"""
