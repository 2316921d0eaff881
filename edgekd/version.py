"""The version of edgekd, read by the build and recorded in every bundle."""

__version__ = "0.1.0"
