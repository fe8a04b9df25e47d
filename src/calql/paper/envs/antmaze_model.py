"""Mazes, physics and MuJoCo models of the AntMaze environments."""

from __future__ import annotations

import dataclasses
import importlib.resources
import xml.etree.ElementTree as ET

import mujoco
import numpy as np

Cell = tuple[int, int]
"""(row, column), counted from the first of the map."""

# D4RL's BIG_MAZE_TEST and HARDEST_MAZE_TEST (`maze_env.py`).
LAYOUTS = {
    "medium": ("########", "#S.##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############",
        "#S...#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
"""# wall, . free, S start, G goal."""
CELL = 4.0
"""Side of a cell in metres."""
ANT = "envs/mujoco/assets/ant.xml"
"""The ant's model file in the package gymnasium."""
FRAME_SKIP = 5
"""Physics steps per decision."""
SUMS_MARGINS = tuple(map(int, mujoco.mj_versionString().split(".")[:2])) >= (3, 5)
"""Since 3.5 MuJoCo detects a contact at the sum of the two geoms' margins, before at the larger one. D4RL's and
Minari's sets were recorded before. All margins of the ant are equal, so halving them gives the older contacts:
steps recorded in 2.3, 3.2 and 3.3 are then reproduced to 1e-6 (relative to the step), and without it to 0.1."""
PIXELS = 64
"""Side of a cell in the image in pixels."""


@dataclasses.dataclass(frozen=True)
class Physics:
    """The differences between the two families of environments."""

    timestep: float
    """Length of a physics step in seconds."""
    gear: int
    """Torque in N m of an action of 1."""
    contact: dict[str, str]
    """MuJoCo's contact settings that differ from its defaults."""
    centred: bool
    """If true, the origin is the maze's centre and y falls with the row; else it is the start cell and y grows."""
    goal_radius: float
    """Distance to the goal, in metres, that counts as success."""
    goal_noise: tuple[tuple[float, float], ...]
    """The goal is its cell's centre plus a uniform draw from each [low, high] in metres, in x and in y."""
    start_noise: tuple[tuple[float, float], ...]
    """The same for the start."""
    pose_noise: float
    """Noise at the start: half width of uniform noise on positions and angles, deviation of Gaussian velocities."""


PHYSICS = {
    "d4rl": Physics(
        timestep=0.02,
        gear=30,
        contact={"solref": ".02 1", "solimp": ".8 .8 .01"},
        centred=False,
        goal_radius=0.5,
        goal_noise=((0.0, 1.0), (0.0, 0.5)),  # `_rowcol_to_xy(add_random_noise=True)`, then `goal_sampler`'s own
        start_noise=(),
        pose_noise=0.1,
    ),
    "gymnasium": Physics(
        timestep=0.01,
        gear=150,
        contact={},
        centred=True,
        goal_radius=0.45,
        goal_noise=((-1.0, 1.0),),
        start_noise=((-1.0, 1.0),),
        pose_noise=0.0,
    ),
}


class Maze:
    """The walls of a maze. Positions are [2], (x, y) in metres."""

    def __init__(self, layout: tuple[str, ...], centred: bool):
        cells = {(row, column): sign for row, line in enumerate(layout) for column, sign in enumerate(line)}
        self.shape = (len(layout), len(layout[0]))
        """Rows and columns, the outer walls included."""
        self.walls: list[Cell] = [cell for cell, sign in cells.items() if sign == "#"]
        self.free_cells: list[Cell] = [cell for cell, sign in cells.items() if sign != "#"]
        self.start: Cell = next(cell for cell, sign in cells.items() if sign == "S")
        self.goal: Cell = next(cell for cell, sign in cells.items() if sign == "G")
        middle = (self.shape[0] - 1) / 2, (self.shape[1] - 1) / 2
        self._origin = np.array(middle if centred else self.start, float)  # row and column at x = y = 0
        self._axes = np.array([-CELL if centred else CELL, CELL])  # metres in y a row, in x a column

    def cell_center(self, cell: tuple[float, float]) -> np.ndarray:
        """Position of a cell's centre (or of a fractional (row, column))."""
        return ((np.asarray(cell) - self._origin) * self._axes)[::-1]

    def cell_of(self, position: np.ndarray) -> Cell:
        """The cell that holds a position; it may lie in a wall or outside."""
        row, column = np.floor(np.asarray(position)[::-1] / self._axes + self._origin + 0.5)
        return int(row), int(column)

    def is_free(self, cell: Cell) -> bool:
        """False in walls and outside."""
        return cell in self.free_cells


def build_model(maze: Maze, physics: Physics) -> mujoco.MjModel:
    """Gymnasium's ant in these physics, walls as boxes 2 m high, and a site `goal`. The colours are ours."""
    tree = ET.ElementTree(ET.fromstring((importlib.resources.files("gymnasium") / ANT).read_text()))

    def part(path: str) -> ET.Element:
        found = tree.find(path)
        assert found is not None, path
        return found

    part("option").set("timestep", str(physics.timestep))
    part("default/geom").attrib.update(physics.contact, rgba=".75 .3 .1 1")
    part("asset/texture[@name='texplane']").attrib.update(rgb1=".95 .95 .95", rgb2=".85 .85 .85")
    for motor in tree.findall("actuator/motor"):
        motor.set("gear", str(physics.gear))
    world, half = part("worldbody"), CELL / 2
    for row, column in maze.walls:
        x, y = maze.cell_center((row, column))
        box = {"type": "box", "pos": f"{x} {y} {half / 2}", "size": f"{half} {half} {half / 2}"}
        ET.SubElement(world, "geom", box, name=f"wall_{row}_{column}", contype="1", conaffinity="1", rgba=".3 .4 .5 1")
    mark = {"type": "cylinder", "pos": "0 0 .02", "size": f"{physics.goal_radius} .01", "rgba": ".1 .6 .2 1"}
    ET.SubElement(world, "site", mark, name="goal")
    model = mujoco.MjModel.from_xml_string(ET.tostring(part("."), encoding="unicode"))
    view = model.vis.global_
    view.orthographic, view.fovy = 1, maze.shape[0] * CELL  # metres from top to bottom
    view.offheight, view.offwidth = (cells * PIXELS for cells in maze.shape)
    if SUMS_MARGINS:
        model.geom_margin[:] /= 2
    model.vis.headlight.specular[:] = 0.0
    model.mat_reflectance[:], model.light_castshadow[:] = 0.0, False  # neither is visible from above, and both are slow
    return model
