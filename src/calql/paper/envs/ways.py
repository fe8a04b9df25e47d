"""Shortest paths through mazes made of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

Cell = tuple[int, int]
"""(row, column)."""


def neighbours(cell: Cell, is_free: Callable[[Cell], bool]) -> Iterator[Cell]:
    """Free neighbours of a cell: right, below, left, above."""
    row, column = cell
    yield from filter(is_free, [(row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)])


def shortest_ways(is_free: Callable[[Cell], bool], goal: Cell) -> dict[Cell, list[Cell]]:
    """For every free cell, the cells of a shortest path to the goal, both ends included, by breadth-first search."""
    ways, queue = {goal: [goal]}, [goal]
    for cell in queue:
        for near in neighbours(cell, is_free):
            if near not in ways:
                ways[near] = [near, *ways[cell]]
                queue.append(near)
    return ways


def share_of_way(ways: Mapping[Cell, Sequence[Cell]], visited: Sequence[Cell]) -> float:
    """The largest share of the first cell's way, counted in cells, that the visited cells have covered: in [0, 1]."""
    left = [len(ways[cell]) - 1 for cell in visited if cell in ways]
    return 1.0 - min(left) / left[0] if left[0] else 1.0
