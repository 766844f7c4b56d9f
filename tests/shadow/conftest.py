"""At the end of a run: on how much of PyTorch's operator database the rules were checked."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    def recorded(name: str) -> list[int]:
        reports = terminalreporter.stats.get("passed", [])
        return [value for r in reports for key, value in r.user_properties if key == name and value]

    calls, samples = recorded("calls"), recorded("samples")
    if calls:
        terminalreporter.write_line(
            f"operator rules: {len(calls)} agree with PyTorch's operators on {sum(calls)} calls"
        )
    if samples:
        terminalreporter.write_line(
            f"operator database: {sum(samples)} samples of {len(samples)} functions agree on shadows from end to end"
        )
