"""Choices and loops: parts of a graph that are run by condition, or several times.

A part is a graph module. Its inputs are those of ONNX, and behind them what it takes from the graph around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.graph.interpreter import Interpreter
from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, whole_numbers
from foldproof.thresholds import MAX_TRIPS

Part = fx.GraphModule


def _run(part: Part, *operands: Any) -> list[Any]:
    return list(Interpreter(part).run(*operands))


@defines("If", several=True)
def choose(
    condition: Tensor,
    *,
    then_branch: Part,
    else_branch: Part,
    then_branch_takes: Sequence[Any] = (),
    else_branch_takes: Sequence[Any] = (),
) -> tuple[Any, ...]:
    if bool(condition):
        return tuple(_run(then_branch, *then_branch_takes))
    return tuple(_run(else_branch, *else_branch_takes))


@defines("Loop", several=True)
def loop(
    trips: Numbers | None = None,
    condition: Tensor | None = None,
    *carried: Any,
    body: Part,
    body_takes: Sequence[Any] = (),
    outputs: int,
) -> tuple[Any, ...]:
    """Run the body until it is told to stop: the values that trips hand on, then those of all trips, stacked."""
    limit = None if trips is None else whole_numbers(trips)[0]
    values, rows = list(carried), []
    trip = 0
    while (limit is None or trip < limit) and (condition is None or bool(condition)):
        if trip == MAX_TRIPS:
            raise NotTranslated(f"a loop of more than {MAX_TRIPS} trips has no definition")
        condition, *made = _run(body, torch.tensor(trip), _condition(condition), *values, *body_takes)
        values, row = made[: len(values)], made[len(values) :]
        rows.append(row)
        trip += 1
    if outputs > len(values) and not rows:
        raise NotTranslated("the values of a loop without trips have no definition")
    return (*values, *(torch.stack(column) for column in zip(*rows)))


def _condition(condition: Tensor | None) -> Tensor:
    return torch.tensor(True) if condition is None else condition


@defines("Scan", several=True)
def scan(
    *operands: Any,
    num_scan_inputs: int,
    body: Part,
    body_takes: Sequence[Any] = (),
    scan_input_axes: Sequence[int] = (),
    scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
) -> tuple[Any, ...]:
    """Run the body on each slice of the last operands: the values that trips hand on, then those of all trips."""
    values, given = list(operands[:-num_scan_inputs]), operands[-num_scan_inputs:]
    slices = [
        x.flip(axis).unbind(axis) if backwards else x.unbind(axis)
        for x, axis, backwards in zip(given, _each(scan_input_axes, given), _each(scan_input_directions, given))
    ]
    rows = []
    for row in zip(*slices):
        made = _run(body, *values, *row, *body_takes)
        values, rest = made[: len(values)], made[len(values) :]
        rows.append(rest)
    if not rows:
        raise NotTranslated("a scan without trips has no definition")
    columns = list(zip(*rows))
    stacked = [
        torch.stack(column[::-1] if backwards else column, axis)
        for column, axis, backwards in zip(
            columns, _each(scan_output_axes, columns), _each(scan_output_directions, columns)
        )
    ]
    return (*values, *stacked)


def _each(given: Sequence[int], values: Sequence[Any]) -> Sequence[int]:
    return given or [0] * len(values)
