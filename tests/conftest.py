"""The marker by which a test says which statement of the theory it re-checks."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Register ``theory``; `tools/claims.py` turns the marks into the book's table of claims."""
    config.addinivalue_line("markers", "theory(number): re-checks this statement of the theory, for instance 5.1")
