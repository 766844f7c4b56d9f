"""Exceptions that are caught are logged, and a bug among them fails a test."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import foldproof
from foldproof.errors import FoldproofError, brief
from foldproof.field import Size
from foldproof.log import giving_up, log_caught
from tests.swallowed import Swallowed, is_bug

SOURCE = Path(foldproof.__file__).parent


def caught(function: object, *args: object) -> BaseException:
    assert callable(function)
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


def test_what_is_caught_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "foldproof"):
        log_caught(caught(int, "x"), "reading a number")
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage() == (
        "caught when reading a number: ValueError: invalid literal for int() with base 10: 'x'"
    )


def test_giving_up_ends_a_block_and_logs_why(caplog: pytest.LogCaptureFixture) -> None:
    done = []
    with caplog.at_level(logging.DEBUG, "foldproof"), giving_up("dividing"):
        done.append(1 / 0)
    assert not done
    assert "caught when dividing: ZeroDivisionError" in caplog.text


def test_an_interrupt_is_not_given_up() -> None:
    with pytest.raises(KeyboardInterrupt), giving_up("waiting"):
        raise KeyboardInterrupt


def test_bugs_are_told_from_other_exceptions() -> None:
    def user() -> None:
        raise KeyError("x")

    def wrapped() -> None:
        try:
            Size.constant(0, 0.0).total("many")  # type: ignore[arg-type]
        except TypeError as error:
            raise FoldproofError("it can't be done") from error

    assert is_bug(caught(Size.constant(0, 0.0).total, "many"))
    assert is_bug(caught(wrapped))
    assert not is_bug(caught(user))
    assert not is_bug(FoldproofError("bad input"))


@pytest.mark.swallows("planted here")
def test_a_bug_that_is_caught_is_noted(swallowed: Swallowed) -> None:
    with giving_up("adding up"):
        Size.constant(0, 0.0).total("many")  # type: ignore[arg-type]
    (told,) = swallowed.bugs
    assert "Traceback" in told


def test_an_error_in_brief() -> None:
    assert brief(ValueError("two\nlines")) == "ValueError: two"
    assert brief(ValueError()) == "ValueError"


def handlers(tree: ast.AST) -> list[ast.ExceptHandler]:
    """Those that catch every exception."""
    every = ("Exception", "BaseException")
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or any(isinstance(n, ast.Name) and n.id in every for n in ast.walk(node.type)))
    ]


def tells(handler: ast.ExceptHandler) -> bool:
    """True if the handler raises in the end, or logs."""
    called = {ast.unparse(n.func) for n in ast.walk(handler) if isinstance(n, ast.Call)}
    return isinstance(handler.body[-1], ast.Raise) or bool(called & {"log_caught", "traceback.print_exc"})


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_what_catches_everything_raises_or_logs(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [handler.lineno for handler in handlers(tree) if not tells(handler)]
    assert not silent, f"{path}: lines {silent}"
    suppressed = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "contextlib.suppress"
        and any(ast.unparse(a) in ("Exception", "BaseException") for a in node.args)
    ]
    assert not suppressed, f"{path}: lines {suppressed}: use `giving_up`"
