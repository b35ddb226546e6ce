"""Progress bars: on terminals, after two seconds, and never where silence was asked for."""

from __future__ import annotations

import contextlib
import io

import pytest

import rdolib as rdo
from rdolib import _progress

MDP = rdo.MDP.garnet(4, 2, 2, seed=0)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    for name in ("CI", "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)


def shown(stream: io.StringIO) -> str:
    """What a solve and a simulation write to a stream in place of stderr."""
    with contextlib.redirect_stderr(stream):
        rdo.value_iteration(MDP, rdo.Threshold(), horizon=40)
        rdo.rollout(MDP, rdo.optimize(MDP, rdo.CVaR(0.1), horizon=5), episodes=10, seed=0)
    return stream.getvalue()


def test_a_bar_names_what_is_being_done() -> None:
    text = shown(Terminal())
    assert "sweeping" in text and "rolling out" in text


@pytest.mark.parametrize("name", ["CI", "TQDM_DISABLE"])
def test_silence_on_request(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert shown(Terminal()) == ""


def test_silence_before_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 1e9)
    assert shown(Terminal()) == ""


def test_silence_where_nobody_looks() -> None:
    assert shown(io.StringIO()) == ""
