"""Fault diagnosis of flights: detection, identification, the cascade of the two."""
