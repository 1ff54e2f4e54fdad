"""What MLflow is told, as names and numbers that it accepts, and its errors in one line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote


def mask(text: str) -> str:
    """The text without what gives access: passwords and tokens in addresses and the environment.

    >>> mask("https://me:secret@host/?token=abc&page=1")
    'https://***@host/?token=***&page=1'
    """
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    return re.sub(r"((?:token|key|password|secret)=)[^&\s'\")]+", r"\1***", text, flags=re.I)


def database_uri(path: Path) -> str:
    """The address of an SQLite file, for MLflow.

    Addresses are parsed: after a ``?`` they have options, and ``%41`` is an ``A``. A path with such
    characters is therefore given as SQLite's own kind of address, in which they are quoted.

    >>> database_uri(Path("/home/me/results/mlflow.db"))
    'sqlite:////home/me/results/mlflow.db'
    """
    plain = str(path)
    if not set(plain) & set("%?#"):
        return f"sqlite:///{plain}"
    from sqlalchemy import URL

    # with the name of the driver, for MLflow would make the folder of any other path in its way
    address = URL.create("sqlite+pysqlite", database=f"file:{quote(plain)}", query={"uri": "true"})
    return address.render_as_string(hide_password=False)


def tracker_error(error: Exception, uri: str) -> str:
    """An error in one short line, with the remedy where there is one."""
    text = " ".join(str(error).split())
    if "out-of-date database schema" in text:
        return (
            "its database is of another MLflow version: keep a copy of it, then run "
            f"`mlflow db upgrade {mask(uri)}`, or `pip install --upgrade mlflow` if it is newer"
        )
    if "filesystem tracking backend" in text:
        return "MLflow keeps no folders any more: use sqlite:///…/mlflow.db or a server"
    if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text:
        return "the server does not answer"
    text = f"{type(error).__name__}: {mask(text)}"
    return text if len(text) <= 200 else f"{text[:199]}…"


def mlflow_name(text: str) -> str:
    """The text with only what MLflow accepts in a name: letters, digits and ``_ - . : /``."""
    return re.sub(r"[^\w\-.:/ ]", "_", text, flags=re.ASCII)[:250]


def interval_metrics(interval: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an interval, named after its metric, for a parent run."""
    compared = ("difference", "p", "improvement", "detectable")
    prefix = f"{interval['attack']}/" if "attack" in interval else ""
    found = {}
    for name, value in interval.items():
        if isinstance(value, int | float) and math.isfinite(value):
            full = name if name.startswith(compared) else f"{interval['metric']}_{name}"
            found[mlflow_name(prefix + full)] = float(value)
    return found


def flat_fields(job: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields under dotted names, values as text.

    >>> flat_fields({"epochs": 3, "victim": {"model": "resnet18"}})
    {'epochs': '3', 'victim.model': 'resnet18'}
    """
    flat: dict[str, str] = {}
    for name, value in job.items():
        if isinstance(value, Mapping):
            flat |= flat_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
