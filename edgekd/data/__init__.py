"""Loaders of users' real files, and the embedded defaults.

`edgekd.data.sniff.load` reads a folder in any known layout; `edgekd.data.icons.icons` is the
embedded few-shot set. Both return `Splits`.
"""

from __future__ import annotations

from edgekd.data.base import Dataset, Images, Splits

__all__ = ["Dataset", "Images", "Splits"]
