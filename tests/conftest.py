"""Options and settings of the test run as a whole; the markers are declared in pyproject.toml."""

import pytest
import torch
from hypothesis import settings

# The same examples in every run, and no time limit for one example: the first call of a torch
# kernel can take longer than hypothesis allows, on a busy machine more than once.
settings.register_profile("minivit", deadline=None, derandomize=True)
settings.load_profile("minivit")

# The models of the tests are small: a second thread costs more than it computes, and on a machine
# that is busy otherwise it costs much more.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail the run, and list what was skipped, when any test was skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--no-skips"):
        config.pluginmanager.register(NoSkips(), "minivit-no-skips")


class NoSkips:
    """Turns skips into a failure of the run: a comparison that was not made proves nothing.

    A whole module may be skipped while it is collected (`pytest.importorskip` at its top), a test
    when it is set up or called. Expected failures are reported as skips too, and are let through.
    """

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def _record(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            # longrepr of a skip is (file, line, "Skipped: reason")
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.skipped.append(f"{report.nodeid}: {reason}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._record(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._record(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        passing = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if self.skipped and session.exitstatus in passing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            terminalreporter.section("skipped, which --no-skips makes a failure", red=True)
            for line in self.skipped:
                terminalreporter.line(line, red=True)
