"""What torch.compile did for a row."""
