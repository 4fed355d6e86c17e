"""A window of a real game library, as a separate program: ``python -m tests.tasks.live.pygame_window 320 200``.

Draws ``plain_window.pattern`` with a frame number that goes up 60 times a second. Writes a line when it is up.
"""

from __future__ import annotations

import sys

import numpy as np
import pygame

from tests.tasks.live.plain_window import pattern


def main() -> None:
    width, height = int(sys.argv[1]), int(sys.argv[2])
    pygame.display.init()
    pygame.display.set_mode((width, height), pygame.RESIZABLE, 32)
    pygame.display.set_caption("Trackmania")
    pictures = [pattern(width, height, number).view("<u4")[..., 0].T for number in range(16)]
    clock, number = pygame.time.Clock(), 0
    while not any(event.type == pygame.QUIT for event in pygame.event.get()):
        surface = pygame.display.get_surface()
        if surface is not None and surface.get_size() == (width, height):
            target = pygame.surfarray.pixels2d(surface)
            np.copyto(target, pictures[number % 16].astype(target.dtype))
            del target
        pygame.display.flip()
        number += 1
        if number == 5:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        clock.tick(60)


if __name__ == "__main__":
    main()
