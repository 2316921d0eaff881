"""What quantisation needs to know about the data."""
