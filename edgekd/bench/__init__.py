"""Benchmark jobs: measure bundles side by side, judge a regression, remember, show.

Everything here runs without torch and without a runtime of its own: the agent runs the artefacts.
"""
