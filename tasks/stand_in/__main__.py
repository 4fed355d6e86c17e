"""``python -m tasks.stand_in``: starts the stand-in game; ``options.py`` has its options.

One JSON line on standard output says that it is ready and names its ports; ``console.py`` has its commands.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from tasks.stand_in.options import Options, parse_options


def main(arguments: Sequence[str]) -> int:
    """Plays until the game is ended; returns the exit status."""
    options = parse_options(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    _prepare_environment(options)
    try:
        import pygame
    except ImportError:
        sys.stderr.write("the stand-in game needs pygame-ce: pip install 'pygame-ce>=2.5,<3'\n")
        return 2
    import cv2

    from tasks.stand_in.console import Console
    from tasks.stand_in.game import StandInGame

    cv2.setNumThreads(1)
    try:
        pygame.display.init()
        pygame.joystick.init()
        with StandInGame(options, Console()) as game:
            game.run()
    except pygame.error as error:
        display = os.environ.get("DISPLAY", "(none)")
        sys.stderr.write(f"no window on display {display} ({error}): start an X server, or name one with --display\n")
        return 2
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        pygame.quit()
    return 0


def _prepare_environment(options: Options) -> None:
    """What SDL reads when it starts: this process only."""
    if options.display is not None:
        os.environ["DISPLAY"] = options.display
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    os.environ["SDL_FRAMEBUFFER_ACCELERATION"] = "0"
    os.environ["SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS"] = "1"
    if sys.platform.startswith("linux"):
        # Else SDL falls back to drawing nowhere when there is no display.
        os.environ.setdefault("SDL_VIDEODRIVER", "x11")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
