"""A suite's cases as benchmarks of pytest-benchmark."""
