"""The files and lines that a CI server reads of a comparison: annotations, a badge and JUnit."""
