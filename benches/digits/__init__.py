"""The embedded `digits` models: real scans, a trained classifier and two trained generators, nothing to download.

`data` holds the scans and their split, `models` the architectures and their loading, `prompts` the words,
`quality` the judge and the distances, `evaluate` the quality table, `train` makes every stored weight again:

    python -m benches.digits.train
    python -m benches.digits.evaluate
"""
