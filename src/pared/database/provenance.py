"""Where a folder comes from: provenance.json, beside what the command left there; the database is rebuilt from it."""

import json
import os
import platform
import subprocess
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pared

FILE = "provenance.json"
FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """Who made a folder, when, where, with which versions and on which data; the fields are those of `Run`."""

    id: str
    kind: str
    status: str
    data: str
    begun: str
    seconds: float
    host: str
    pared: str
    torch: str
    python: str
    git: str | None = None
    fingerprint: str | None = None
    parent: str | None = None
    reason: str | None = None
    traceback: str | None = None


def fresh(kind: str, data: str) -> Provenance:
    """Of a command that begins now, here."""
    return Provenance(
        id=uuid.uuid4().hex,
        kind=kind,
        status="failed",  # until it ends well
        data=data,
        begun=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        host=platform.node(),
        pared=pared.__version__,
        torch=version("torch"),
        python=platform.python_version(),
        git=_commit(),
    )


def write(folder: Path, provenance: Provenance) -> None:
    """Writes the file as a whole or not at all."""
    beside = folder / f".{FILE}.tmp"
    try:
        beside.write_text(json.dumps({"format": FORMAT, **asdict(provenance)}, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, folder / FILE)
    finally:
        beside.unlink(missing_ok=True)


def read(folder: Path) -> Provenance | None:
    """What a folder holds; None where it holds none that can be understood."""
    try:
        content: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        return Provenance(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _commit() -> str | None:
    """The commit of the working directory, -dirty where files differ from it; None outside of a repository."""
    words = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None
