"""The picture that ``--check`` draws of a user's own track or path, so that the user can check the road.

``tasks.roles.check.check`` calls it. A line that the simulator refuses is drawn too, as it is in the file.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tasks.config import GameKind, TaskConfig, config_to_dict
from tasks.pictures import plot_driven_line
from tasks.points.files import is_point_file, read_points
from tasks.trackmania.course import course, file_notes

_TITLE_SIGNS = 72
"""Width of the title."""


def own_line(task: TaskConfig) -> str | None:
    """The user's file of the line that is driven; None: a shipped track."""
    line = task.reward.path if task.game is GameKind.live and task.reward.path is not None else task.track
    return line if is_point_file(line) else None


def draw_own_line(task: TaskConfig, picture: Path) -> None:
    """Draws the line of the user's file as the road that is driven.

    Args:
        task: A task with an own line; its game is decided.
        picture: PNG file to write, its folder is made.

    Raises:
        ValueError: The line cannot be driven; the message ends with the picture of what is in the file.
    """
    file = own_line(task)
    assert file is not None
    points = read_points(file)
    try:
        line = course(config_to_dict(task)).centre_line
    except ValueError as error:
        title, is_left = _title(str(error)), points.is_x_left(task.game is GameKind.live)
        plot_driven_line(points.ground, task.track_width_m, [], picture, title=title, is_x_left=is_left)
        raise ValueError(f"{error}: {picture}") from error
    plot_driven_line(line, task.track_width_m, [], picture, title=_title(*file_notes(task)))


def _title(*texts: str) -> str:
    return "\n".join(textwrap.fill(text, _TITLE_SIGNS) for text in texts)
