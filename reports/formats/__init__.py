"""A run or a comparison as text: Markdown, JSON, pytest-benchmark's JSON, and tables for a terminal."""
