"""Distillation: terms of an objective, views of the data, the training loop."""
