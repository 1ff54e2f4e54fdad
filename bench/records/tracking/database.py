"""The SQLite file of a tracker: made whole or not at all, checked, and moved with its folder.

MLflow makes its tables by dozens of migrations, which takes seconds, and a database that was
interrupted in them cannot be opened again. Therefore one is made under another name, kept in the
user's cache, and copied into place.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from bench.files import atomic, checksums

JOURNALS = ("-journal", "-wal", "-shm")
USER_VERSION = slice(60, 64)
"""Where the header of an SQLite file has its "user version" (sqlite.org/fileformat.html, 1.3).

It is 1 as long as the records of the folder have not all been logged to a new database."""

State = Literal["missing", "half-made", "damaged", "whole"]


def local_path(uri: str) -> Path | None:
    """The file of a tracker's address; None if it is not an SQLite file.

    >>> local_path("sqlite:////home/me/mlflow.db")
    PosixPath('/home/me/mlflow.db')
    """
    path = uri.removeprefix("sqlite:///")
    return None if path == uri or not path or path.startswith(":") or "?" in path else Path(path)


def state(path: Path, thorough: bool = False) -> State:
    """What a path holds.

    Args:
        path: The file.
        thorough: Also check the structure of the whole file, which reads it once.
    """
    if not path.exists():
        return "missing"
    try:
        with _opened(path) as database:
            versions = database.execute("SELECT version_num FROM alembic_version").fetchall()
            used = database.execute("SELECT 1 FROM experiments LIMIT 1").fetchall()
            if thorough and database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return "damaged"
    except sqlite3.OperationalError as error:
        return "half-made" if "no such table" in str(error) else "whole"
    except sqlite3.DatabaseError:
        return "damaged"
    return "whole" if versions and used else "half-made"


def prepare(path: Path, make: Callable[[Path], None], version: str, thorough: bool = False) -> str:
    """Put an empty database where there is none that can be opened.

    Args:
        path: The file. One that is half made or damaged is kept under another name.
        make: Makes the tables of a database that does not exist yet.
        version: Version of MLflow, whose tables differ from those of others.
        thorough: As in `state`.

    Returns:
        A line that says what was set aside; empty if nothing was.

    Raises:
        OSError: It is a folder or cannot be written; then nothing has changed.
    """
    if path.is_dir():  # MLflow would try for minutes
        raise IsADirectoryError(
            f"{path} is a folder and no database: move it away, or give --tracking-uri"
        )
    found = state(path, thorough)
    if found == "whole":
        return ""
    content = _ready_made(make, version)
    line = ""
    if found != "missing":
        line = f"{path} was {found}: it is kept as {_set_aside(path).name}, and a new one is made"
    for suffix in JOURNALS:  # one of another database would be played into this one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    atomic.write(path, content)
    return line


def lacks_records(path: Path) -> bool:
    """Whether the records of the folder have not all been logged since the database was made."""
    try:
        with path.open("rb") as file:
            return any(file.read(USER_VERSION.stop)[USER_VERSION])
    except OSError:
        return False


def note_records(path: Path) -> None:
    """Note that all records of the folder have been logged."""
    with _opened(path) as database:
        database.execute("PRAGMA user_version = 0")


def relocate(path: Path, artifacts: str, study: str) -> None:
    """Let a database that was copied or moved point to the artifacts beside it.

    Args:
        path: The file.
        artifacts: Address of the folder of artifacts that belongs to it.
        study: Only experiments of this study are changed.
    """
    with _opened(path) as database:
        moved = database.execute(
            "SELECT experiment_id, artifact_location FROM experiments "
            "WHERE artifact_location <> ? AND substr(name, 1, ?) = ?",
            (artifacts, len(study) + 1, f"{study}/"),
        ).fetchall()
        if not moved:
            return
        database.execute("BEGIN IMMEDIATE")
        for experiment, before in moved:
            places = [("runs", "artifact_uri"), ("logged_models", "artifact_location")]
            for table, column in (*places, ("experiments", "artifact_location")):
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE experiment_id = ? AND substr({column}, 1, ?) = ?",
                    (artifacts, len(before) + 1, experiment, len(before), before),
                )
        database.execute("COMMIT")


def _ready_made(make: Callable[[Path], None], version: str) -> bytes:
    """The content of an empty database, from the user's cache or made now.

    The name of a file in the cache ends with the checksum of its content.
    """
    import platformdirs

    cache = platformdirs.user_cache_path("bench") / "tracker"
    for path in cache.glob(f"empty-{version}-*.db"):
        with suppress(OSError):
            content = path.read_bytes()
            if checksums.of_bytes(content) == path.stem.rpartition("-")[2]:
                return content
            path.unlink()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        path = Path(name) / "mlflow.db"
        make(path)
        with _opened(path) as database:
            database.execute("PRAGMA user_version = 1")
        content = path.read_bytes()
    with suppress(OSError):  # without room or permission for it, the next one takes seconds again
        atomic.write(cache / f"empty-{version}-{checksums.of_bytes(content)}.db", content)
    return content


def _set_aside(path: Path) -> Path:
    """Rename a database and its journals to a name that is free."""
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in JOURNALS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    address = f"{path.resolve().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=20, isolation_level=None)) as database:
        yield database
