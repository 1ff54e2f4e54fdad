"""What is checked, by one command: ``nox``; a single session by ``nox -s tests``.

The sessions use the environment that nox itself lies in, for torch is gigabytes and nobody wants a
copy per session; `smoke` installs into one of its own because that is what it is about, `audit` to
keep its tool out of what it audits.
"""

import json
import sys
import sysconfig
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]


def python(session: nox.Session, *arguments: str) -> None:
    """Run a module of the environment that nox lies in."""
    session.run(sys.executable, "-m", *arguments, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    python(session, "ruff", "check")
    python(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Type hints, strictly."""
    python(session, "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that is promised, shapes included; the doctests too. All cores, at most four."""
    if session.posargs:
        python(session, "pytest", *session.posargs)
        return
    session.env["OMP_NUM_THREADS"] = "1"  # a worker for each core: more threads wait for each other
    # a file stays on one worker, for its tests may share a training
    python(session, "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile")


@nox.session
def quick(session: nox.Session) -> None:
    """The inner loop, in less than a minute: style, and the fast tests without shape checks."""
    lint(session)
    fast = ["-m", "not slow and not gpu", "--jaxtyping-packages="]
    python(session, "pytest", "-q", *fast, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, strictly, into ``site/``; it asks the network for nothing."""
    session.env["NO_MKDOCS_2_WARNING"] = "1"  # an advertisement that repeats itself
    python(session, "mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="venv")
def smoke(session: nox.Session) -> None:
    """The built wheel, outside the checkout: the two main commands at their smallest."""
    wheels = Path(session.create_tmp()).resolve() / "wheels"
    session.run(sys.executable, "-m", "build", "--wheel", "--outdir", str(wheels), external=True)
    session.install(*map(str, wheels.glob("*.whl")))
    session.chdir(wheels)
    session.run("bench", "run", "--aug", "cutout", "--model", "resnet8", "--seeds", "2")
    session.run("bench", "tables", "--format", "markdown")


@nox.session
def peers(session: nox.Session) -> None:
    """Attacks beside other libraries', or a checkout's: ``-- --adversarial-library FOLDER``."""
    if "--adversarial-library" in session.posargs:
        session.run(sys.executable, "tests/peers.py", *session.posargs, external=True)
        return
    folder = str(Path(session.create_tmp()).resolve())
    python(
        session, "pip", "install", "-qq", "--upgrade", "--no-deps", "--target", folder,
        "adversarial-robustness-toolbox", "torchattacks", "six", "tqdm",
    )  # fmt: skip
    session.env["PYTHONPATH"] = folder
    session.run(sys.executable, "tests/peers.py", *session.posargs, external=True)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, fill, cut and mislead the bench, and count what survives; minutes."""
    session.run(sys.executable, "tests/faults.py", *session.posargs, external=True)


@nox.session(venv_backend="venv")
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew: versions with hashes, which continuous integration installs."""
    session.install("uv")
    what = ["pyproject.toml", "--extra", "dev", "--universal", "--python-version", "3.11"]
    how = ["--generate-hashes", "--no-header", "--quiet", "--output-file", "requirements.lock"]
    session.run("uv", "pip", "compile", *what, *how, *session.posargs)


@nox.session(venv_backend="venv")
def audit(session: nox.Session) -> None:
    """Known weaknesses of what we depend on, of a list that is given or of the package registry.

    ``nox -s audit -- FILE`` takes advisories in the OSV format and asks no network.
    """
    if session.posargs:
        session.run(sys.executable, "tests/audit.py", *session.posargs, external=True)
        return
    session.install("pip-audit")
    report = Path(session.create_tmp()).resolve() / "audit.json"
    # audits the environment that nox lies in, not its own; 1: weaknesses were found
    place = [
        "--path",
        sysconfig.get_path("purelib"),
        "--skip-editable",
        "--progress-spinner",
        "off",
    ]
    found = ["--format", "json", "--output", str(report)]
    session.run("pip-audit", *place, *found, success_codes=[0, 1])
    packages = json.loads(report.read_text())["dependencies"]
    audited = [package for package in packages if "vulns" in package]
    session.log(f"{len(audited)} of {len(packages)} packages could be audited")
    weak = [
        f"{package['name']} {package['version']}: {each['id']}"
        for package in audited
        for each in package["vulns"]
    ]
    if weak or len(audited) < len(packages) / 2:
        # a registry that knows none of them says nothing of their weaknesses
        session.error("; ".join(weak) or "the registry does not tell of weaknesses")
