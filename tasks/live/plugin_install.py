"""Puts our Openplanet plugin into the game's folder: ``train.py --install-plugin [--to DIR]``.

TMRL's plugin works as well and needs no installation here; ours is for users who have none. The folder is found on
Windows and in the prefixes of Proton and Wine. A file that differs from ours is kept under another name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PLUGIN_NAME = "TM20RL_Telemetry"
"""Name of the folder, by which Openplanet knows the plugin."""
SOURCE = Path(__file__).with_name("plugin") / PLUGIN_NAME
"""The folder as it is copied: ``info.toml`` and ``main.as``."""

_USER_FOLDER = "OpenplanetNext"
"""Openplanet's folder for TrackMania 2020 in the user's home."""
_STEAM_ROOTS = (
    ".steam/steam",
    ".steam/root",
    ".local/share/Steam",
    ".var/app/com.valvesoftware.Steam/.local/share/Steam",
    "snap/steam/common/.local/share/Steam",
)
_PREFIXES = (
    ".wine",
    ".local/share/lutris/prefixes/*",
    "Games/*",
    "Games/Heroic/Prefixes/*",
    "Games/Heroic/Prefixes/*/*",
)
"""Wine prefixes outside Steam, relative to the home."""
_LIBRARY_PATH = re.compile(r'"path"\s+"((?:[^"\\]|\\.)*)"')
_TMRL_PLUGINS = ("TMRL_GrabData", "TMRL_SaveGhost")


def install_plugin(to: Path | None = None) -> str:
    """Copies the plugin.

    Args:
        to: Openplanet's folder ``Plugins``, or the folder ``OpenplanetNext`` that holds it. None: it is looked for.

    Returns:
        What was done and what to do next, in lines for people.

    Raises:
        ValueError: There is no such folder, or more than one; or a file cannot be written.
    """
    plugins = _found_folder() if to is None else _given_folder(to)
    target = plugins / PLUGIN_NAME
    try:
        target.mkdir(parents=True, exist_ok=True)
        lines = [_install_file(source, target / source.name) for source in _sources()]
    except OSError as error:
        raise ValueError(f"the plugin cannot be written to {target}: {error}") from error
    return "\n".join([f"Plugin {PLUGIN_NAME} -> {target}", *lines, *_tmrl_lines(plugins), *_NEXT_STEPS])


def find_plugin_folders(home: Path | None = None) -> list[Path]:
    """Openplanet's folders ``Plugins`` on this machine, whether or not they exist yet within ``OpenplanetNext``.

    Args:
        home: The user's home; None: of this user.
    """
    found: dict[Path, Path] = {}
    for folder in _user_folders(Path.home() if home is None else home):
        if folder.is_dir():
            # The same Steam folder may have several names.
            found.setdefault(folder.resolve(), folder)
    return [folder / "Plugins" for folder in found.values()]


_NEXT_STEPS = (
    "Next, in the game: press F3 and choose Openplanet > Signature Mode > Developer, as the plugin is not signed (that",
    f"mode turns leaderboards off on most maps); then Developer > Load plugin > {PLUGIN_NAME}, and load a map.",
    "See whether records arrive: python train.py --check task.game=live",
)


def _found_folder() -> Path:
    folders = find_plugin_folders()
    if not folders:
        raise ValueError(
            f"no folder {_USER_FOLDER} was found; looked in {_looked_in(Path.home())}. Start the game once with "
            "Openplanet, which makes it, or name it: --install-plugin --to DIR"
        )
    if len(folders) > 1:
        names = ", ".join(str(folder) for folder in folders)
        raise ValueError(f"several Openplanet folders were found: {names}. Name one: --install-plugin --to DIR")
    return folders[0]


def _given_folder(to: Path) -> Path:
    folder = to.expanduser()
    if not folder.is_dir():
        raise ValueError(f"--to must be an existing folder, Openplanet's Plugins, got {str(to)!r}")
    return folder / "Plugins" if folder.name == _USER_FOLDER else folder


def _sources() -> list[Path]:
    sources = sorted(path for path in SOURCE.iterdir() if path.suffix in (".toml", ".as"))
    if not sources:
        raise ValueError(f"the plugin's files are missing from {SOURCE}: install tm20-rl again")
    return sources


def _install_file(source: Path, target: Path) -> str:
    """Copies one file, whole or not at all, and says so; a different file at its place keeps its content elsewhere."""
    content = source.read_bytes()
    if target.is_file() and target.read_bytes() == content:
        return f"  {target.name}: is already there, unchanged"
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(content)
    backup = _free_name(target) if target.exists() else None
    if backup is not None:
        target.replace(backup)
    part.replace(target)
    if backup is None:
        return f"  {target.name}: written"
    return f"  {target.name}: written; the old file differs and is now {backup}"


def _free_name(target: Path) -> Path:
    """A name for a backup; it does not end in ``.as``, which Openplanet would compile."""
    number = 1
    while (name := target.with_name(f"{target.name}.bak{number}")).exists():
        number += 1
    return name


def _tmrl_lines(plugins: Path) -> list[str]:
    """A word on TMRL's plugins, which want the same ports."""
    names = [name for name in _TMRL_PLUGINS if (plugins / f"{name}.op").exists() or (plugins / name).exists()]
    if not names:
        return []
    return [
        f"Note: TMRL's {' and '.join(names)} use the same ports and work as well, but not while ours is loaded;",
        f"to use them again, remove the folder {PLUGIN_NAME}.",
    ]


def _user_folders(home: Path) -> Iterator[Path]:
    """Where ``OpenplanetNext`` may be."""
    yield home / _USER_FOLDER
    if sys.platform == "win32":
        return
    for library in _steam_libraries(home):
        yield from _below(library, f"steamapps/compatdata/*/pfx/drive_c/users/*/{_USER_FOLDER}")
    for prefix in _PREFIXES:
        yield from _below(home, f"{prefix}/drive_c/users/*/{_USER_FOLDER}")


def _steam_libraries(home: Path) -> Iterator[Path]:
    """Steam's own folder and those on other disks."""
    for root in (home / name for name in _STEAM_ROOTS):
        yield root
        try:
            text = (root / "steamapps/libraryfolders.vdf").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for match in _LIBRARY_PATH.finditer(text):
            yield Path(match[1].replace("\\\\", "\\"))


def _below(folder: Path, pattern: str) -> Iterable[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def _looked_in(home: Path) -> str:
    places = [str(home)]
    if sys.platform != "win32":
        places += [str(library) for library in _steam_libraries(home)]
        places += [str(home / prefix) for prefix in _PREFIXES]
    return ", ".join(dict.fromkeys(places))
