"""What a CI server reads of a comparison: annotations, a badge, JUnit, the state of the gate."""
