"""What holds for every test of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

from dev import Dev


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """One line in the form of Rust's test programs, so that the repository's test command can add up all of them.

    A test that is skipped has not shown anything: it counts as failed.
    """
    count = {
        outcome: len(terminalreporter.stats.get(outcome, [])) for outcome in ("passed", "failed", "error", "skipped")
    }
    failed = count["failed"] + count["error"] + count["skipped"]
    verdict = "FAILED" if failed else "ok"
    terminalreporter.write_line(f"test result: {verdict}. {count['passed']} passed; {failed} failed")


@pytest.fixture(scope="session")
def dev() -> Iterator[Dev]:
    """A running development environment, shared by all live tests that do not say otherwise."""
    with Dev() as running:
        yield running
