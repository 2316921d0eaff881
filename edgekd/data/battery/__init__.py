"""Measured load and generation of homes, and prices: loaders of users' files, embedded default."""
