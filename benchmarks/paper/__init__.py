"""One module a paper; see ``benchmarks/papers.py``."""
