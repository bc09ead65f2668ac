"""A PostgreSQL server of the tests' own: a temporary cluster on the loopback address, gone when they are through.

@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres.database() as url:  # skips, with the reason, where there is none to be had
        yield url
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OWNER = "postgres"
"""PostgreSQL refuses to run as root; who is root starts it as this user."""
QUICK = ("fsync=off", "synchronous_commit=off", "unix_socket_directories=", "listen_addresses=127.0.0.1")


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    if importlib.util.find_spec("psycopg") is None:
        return "needs psycopg: pip install 'pared[postgres]'"
    if not _program("initdb"):
        return "needs a PostgreSQL server: apt-get install postgresql"
    if os.geteuid() == 0 and OWNER not in (user.pw_name for user in pwd.getpwall()):
        return f"PostgreSQL does not run as root, and there is no user {OWNER}"
    return None


@contextmanager
def database() -> Iterator[str]:
    """The URL of an empty database, for SQLAlchemy; its server runs as long as the context. Skips where `missing`."""
    with cluster() as folder, running(folder, free_port()) as url:
        yield url


@contextmanager
def cluster() -> Iterator[Path]:
    """The folder of a new cluster, for `running`. Skips where `missing`."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pared-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, OWNER)
        create = [_program("initdb"), "-D", folder / "cluster", "-U", "pared", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*create, "--locale=C", "--no-sync"], check=True, timeout=60, **_told(folder))
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def running(folder: Path, port: int) -> Iterator[str]:
    """The URL of a cluster's database, as long as the context; after that the server is gone."""
    options = [word for setting in (*QUICK, f"port={port}") for word in ("-c", setting)]
    words = [_program("postgres"), "-D", folder / "cluster", *options]
    server = subprocess.Popen(words, **_told(folder) | {"stdout": subprocess.DEVNULL})
    try:
        _wait(server, port)
        yield f"postgresql+psycopg://pared@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # open connections are closed
        server.wait(30)


def _told(folder: Path) -> dict[str, Any]:
    """How programs of the server are started."""
    told: dict[str, Any] = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if os.geteuid() == 0:
        told |= {"user": OWNER, "group": pwd.getpwnam(OWNER).pw_gid, "extra_groups": ()}
    return told


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Until the server answers."""
    import psycopg

    end = time.monotonic() + 30
    while server.poll() is None:
        try:
            return psycopg.connect(f"host=127.0.0.1 port={port} user=pared dbname=postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    raise RuntimeError(f"the server ended at once, with code {server.returncode}")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _program(name: str) -> str | None:
    """Where a program of the server is: Debian keeps them out of the search path."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return shutil.which(name) or (str(newest[-1]) if newest else None)
