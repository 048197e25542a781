"""A run or a comparison as text: Markdown, pytest-benchmark's JSON, tables for a terminal."""
