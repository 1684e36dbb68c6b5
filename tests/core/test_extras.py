"""Extras: what they bring and whether it is there, from the package's metadata."""

import importlib.metadata

import pytest

from gymrail import extras
from gymrail.errors import InputError

REQUIRES = [
    "pyyaml>=6",
    "uvloop>=0.19; sys_platform != 'win32'",
    "bm25s>=0.2; extra == 'search'",
    'no-such-package[x]>=1,<2; extra == "search"',
    "gymrail[search]; extra == 'all'",
    "mcp<3,>=2.2; (python_version >= '3.11') and extra == 'serve'",
]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    extras._packages.cache_clear()
    extras._is_installed.cache_clear()


def test_only_the_packages_that_are_not_there_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    assert extras.missing_packages("search") == ["no-such-package"]
    assert extras.missing_packages("serve") == []
    assert extras.missing_packages("all") == []
    extras._packages.cache_clear()


def test_an_extra_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Gymrail has no extra 'serv'\. Did you mean 'serve'\?"):
        extras.missing_packages("serv")


def test_what_the_tests_need_is_installed() -> None:
    assert extras.missing_packages("serve") == []
    assert extras.install_command("serve") == "pip install 'gymrail[serve]'"
