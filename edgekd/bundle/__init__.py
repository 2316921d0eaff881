"""The bundle: a folder (and ``.zip``) that stands alone.

    manifest.json          every number and digest; `edgekd.bundle.manifest` has its schema
    SHA256SUMS             sha256 of every file but itself; its own sha256 is the bundle's digest
    model/…                the artefact
    golden.npz             inputs, and the outputs that the artefact gives for them
    state.npz              what the task needs beside the network, if anything
    report.html README.md THIRD_PARTY_NOTICES.md LICENSE …

Reading and checking need the standard library alone.
"""

from __future__ import annotations

from edgekd.bundle.integrity import Audit, Fault, audit
from edgekd.bundle.manifest import SCHEMA_VERSION
from edgekd.bundle.read import Bundle, open_bundle, read_manifest
from edgekd.bundle.write import check_place, place_bundle, unchanged, write_bundle, zip_beside

__all__ = [
    "SCHEMA_VERSION",
    "Audit",
    "Bundle",
    "Fault",
    "audit",
    "check_place",
    "open_bundle",
    "place_bundle",
    "read_manifest",
    "unchanged",
    "write_bundle",
    "zip_beside",
]
