"""Commands that measure: timings, seeds, papers, peers. Not part of the package."""
