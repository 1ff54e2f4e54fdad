"""Threads wait passively on a busy machine, unless the user has chosen."""

import pytest

from bench.execution import waiting


@pytest.mark.parametrize(("load", "policy"), [(0.0, None), (0.49, None), (0.5, "PASSIVE")])
def test_the_load_decides(load: float, policy: str | None) -> None:
    environ: dict[str, str] = {}
    assert waiting.choose(environ, load) == (policy is not None)
    assert environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize("name", waiting.POLICIES)
def test_what_the_user_has_chosen_stays(name: str) -> None:
    environ = {name: "ACTIVE"}
    assert not waiting.choose(environ, 9.0)
    assert environ == {name: "ACTIVE"}
