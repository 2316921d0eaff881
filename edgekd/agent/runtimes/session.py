"""What a runtime gives the agent: a session with named inputs and outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, Any]

Step = Callable[[], object]


@dataclass(frozen=True)
class Port:
    """One input or output: its name, its shape (None where free) and its numpy dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def as_json(self) -> dict[str, Any]:
        """Return the port as plain data."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True)
class Layer:
    """One layer as the runtime executes it: its name there, its kind, milliseconds."""

    name: str
    kind: str
    ms: float


class Session(ABC):
    """One opened model. A runtime module offers ``open_session(model, options) -> Session``.

    A third party's session need not derive from this class: `adapt` fills in what it lacks.

    Attributes:
        version: The version of the runtime that runs it.
        inputs: What the model takes.
        outputs: What the model gives.
        load_s: Seconds to make it ready, without the import of the runtime.
        effective: What really runs, read back from the runtime where it can be; always with
            ``threads``.
    """

    version: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    load_s: float
    effective: dict[str, Any]

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for one batch, owned by the caller."""

    def bind(self, feeds: Mapping[str, Array]) -> Step:
        """Return a call that makes one inference on `feeds` and does as little else as it can."""
        return lambda: self.run(feeds)

    def trace(self, runs: int, max_seconds: float) -> list[float] | None:
        """Return the milliseconds of single inferences where the runtime's own tool times them.

        None, as for most: steps of `bind` are timed.
        """
        del runs, max_seconds
        return None

    def energy(self) -> dict[str, Any] | None:
        """Return what is known of energy where the sensors are not read around steps of `bind`."""
        return None

    def layers(self, feeds: Mapping[str, Array], runs: int) -> list[Layer] | None:
        """Return every layer's median over so many inferences, by the runtime's own profiler.

        None where the runtime tells none. The profiler costs time itself: what it says of a layer
        is a share of the whole, not what the layer takes when nobody looks.
        """
        del feeds, runs
        return None

    def evidence(self, folder: Path) -> dict[str, Any]:
        """Write what the runtime told of the artefact into a folder; return facts about it."""
        del folder
        return {}

    def close(self) -> None:  # noqa: B027 - most runtimes have nothing to close
        """Let go of what the session holds."""


class Adapted(Session):
    """A session that only has ``inputs``, ``outputs``, ``effective``, ``run`` and ``close``.

    Its ports may be mappings with ``name``, ``shape`` and ``dtype``; ``version``, ``load_s`` and
    ``bind`` are its own where it has them.
    """

    def __init__(self, session: Any, *, version: str | None, load_s: float) -> None:
        self._session = session
        self.version = str(getattr(session, "version", None) or version or "unknown")
        self.load_s = float(getattr(session, "load_s", load_s))
        self.inputs = [as_port(port) for port in session.inputs]
        self.outputs = [as_port(port) for port in session.outputs]
        self.effective = dict(session.effective)
        if hasattr(session, "bind"):
            self.bind = session.bind  # type: ignore[method-assign]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the session returns."""
        return dict(self._session.run(feeds))

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def adapt(session: Any, *, version: str | None, load_s: float) -> Session:
    """Return `session` itself, or dressed as a `Session` where it is a stranger's."""
    if isinstance(session, Session):
        return session
    return Adapted(session, version=version, load_s=load_s)


def as_port(port: Any) -> Port:
    """Return a port from a `Port` or from a mapping."""
    if isinstance(port, Mapping):
        return Port(port["name"], tuple(port["shape"]), str(port["dtype"]))
    return Port(port.name, tuple(port.shape), str(port.dtype))
