"""What changes the numbers that a network computes with: precisions, quantisation, attention, optimisations."""
