from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tasks.config import LiveConfig
from tasks.live.plugin_install import PLUGIN_NAME, SOURCE, find_plugin_folders, install_plugin

COMPATDATA = "steamapps/compatdata/2225070/pfx/drive_c/users/steamuser/OpenplanetNext"

linux_only = pytest.mark.skipif(sys.platform == "win32", reason="there are no prefixes on Windows")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def installed(plugins: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((plugins / PLUGIN_NAME).iterdir())}


# --- the folder ---


def test_plugin_goes_into_the_given_folder(tmp_path: Path) -> None:
    answer = install_plugin(tmp_path)
    assert installed(tmp_path) == {name: (SOURCE / name).read_text() for name in ("info.toml", "main.as")}
    assert f"-> {tmp_path / PLUGIN_NAME}" in answer
    assert "main.as: written" in answer
    assert "Signature Mode > Developer" in answer


def test_given_openplanet_folder_stands_for_its_plugins(tmp_path: Path) -> None:
    folder = make(tmp_path / "OpenplanetNext")
    install_plugin(folder)
    assert (folder / "Plugins" / PLUGIN_NAME / "main.as").is_file()


def test_given_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--to must be an existing folder, Openplanet's Plugins, got .*nowhere"):
        install_plugin(tmp_path / "nowhere")


def test_folder_of_windows_is_found_without_its_plugins(home: Path) -> None:
    make(home / "OpenplanetNext")
    install_plugin()
    assert (home / "OpenplanetNext/Plugins" / PLUGIN_NAME / "info.toml").is_file()


@linux_only
@pytest.mark.parametrize(
    "place",
    [
        f".steam/steam/{COMPATDATA}",
        f".local/share/Steam/{COMPATDATA}",
        f".var/app/com.valvesoftware.Steam/.local/share/Steam/{COMPATDATA}",
        ".wine/drive_c/users/me/OpenplanetNext",
        "Games/trackmania/drive_c/users/me/OpenplanetNext",
        "Games/Heroic/Prefixes/default/Trackmania/drive_c/users/me/OpenplanetNext",
    ],
)
def test_folder_is_found_in_a_prefix(home: Path, place: str) -> None:
    make(home / place)
    assert find_plugin_folders() == [home / place / "Plugins"]
    install_plugin()
    assert (home / place / "Plugins" / PLUGIN_NAME / "main.as").is_file()


@linux_only
def test_folder_is_found_in_a_steam_library_on_another_disk(home: Path, tmp_path: Path) -> None:
    library = tmp_path / "disk"
    make(library / COMPATDATA)
    (make(home / ".steam/steam/steamapps") / "libraryfolders.vdf").write_text(
        f'"libraryfolders"\n{{\n\t"0"\n\t{{\n\t\t"path"\t\t"{library}"\n\t\t"label"\t\t""\n\t}}\n}}\n'
    )
    assert find_plugin_folders() == [library / COMPATDATA / "Plugins"]


@linux_only
def test_one_folder_with_two_names_counts_once(home: Path) -> None:
    make(home / ".local/share/Steam" / COMPATDATA)
    make(home / ".steam")
    (home / ".steam/steam").symlink_to(home / ".local/share/Steam")
    (home / ".steam/root").symlink_to(home / ".local/share/Steam")
    assert len(find_plugin_folders()) == 1


def test_no_folder_is_refused_with_the_places(home: Path) -> None:
    with pytest.raises(ValueError, match="no folder OpenplanetNext was found; looked in") as caught:
        install_plugin()
    assert str(home) in str(caught.value)
    assert "--install-plugin --to DIR" in str(caught.value)
    if sys.platform != "win32":
        assert str(home / ".steam/steam") in str(caught.value)


@linux_only
def test_several_folders_are_refused_with_their_names(home: Path) -> None:
    first = make(home / "OpenplanetNext")
    second = make(home / ".steam/steam" / COMPATDATA)
    with pytest.raises(ValueError, match="several Openplanet folders were found") as caught:
        install_plugin()
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert list(first.iterdir()) == list(second.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / PLUGIN_NAME).write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=f"the plugin cannot be written to .*{PLUGIN_NAME}"):
        install_plugin(tmp_path)


# --- existing files ---


def test_second_installation_changes_nothing(tmp_path: Path) -> None:
    install_plugin(tmp_path)
    before = installed(tmp_path)
    answer = install_plugin(tmp_path)
    assert installed(tmp_path) == before
    assert "main.as: is already there, unchanged" in answer
    assert "info.toml: is already there, unchanged" in answer


def test_a_changed_file_is_kept_and_its_new_name_printed(tmp_path: Path) -> None:
    folder = make(tmp_path / PLUGIN_NAME)
    (folder / "main.as").write_text("// mine")
    answer = install_plugin(tmp_path)
    assert installed(tmp_path)["main.as.bak1"] == "// mine"
    assert installed(tmp_path)["main.as"] == (SOURCE / "main.as").read_text()
    assert f"main.as: written; the old file differs and is now {folder / 'main.as.bak1'}" in answer


def test_backups_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = make(tmp_path / PLUGIN_NAME)
    for text in ("// one", "// two"):
        (folder / "main.as").write_text(text)
        install_plugin(tmp_path)
    assert installed(tmp_path)["main.as.bak1"] == "// one"
    assert installed(tmp_path)["main.as.bak2"] == "// two"


def test_other_files_of_the_user_stay(tmp_path: Path) -> None:
    (make(tmp_path / PLUGIN_NAME) / "notes.txt").write_text("mine")
    (make(tmp_path / "Another") / "main.as").write_text("mine")
    install_plugin(tmp_path)
    assert installed(tmp_path)["notes.txt"] == "mine"
    assert (tmp_path / "Another/main.as").read_text() == "mine"


def test_nothing_but_our_files_and_backups_is_left(tmp_path: Path) -> None:
    (make(tmp_path / PLUGIN_NAME) / "info.toml").write_text("[meta]")
    install_plugin(tmp_path)
    assert list(installed(tmp_path)) == ["info.toml", "info.toml.bak1", "main.as"]


@pytest.mark.parametrize("name", ["TMRL_GrabData.op", "TMRL_GrabData"])
def test_plugin_of_tmrl_on_the_same_port_is_mentioned(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    answer = install_plugin(tmp_path)
    assert "TMRL's TMRL_GrabData use the same ports" in answer


def test_tmrl_is_not_mentioned_without_its_plugin(tmp_path: Path) -> None:
    assert "TMRL" not in install_plugin(tmp_path)


# --- the installed script; it cannot be compiled here, so only its text is checked ---


def test_metadata_is_complete() -> None:
    meta = tomllib.loads((SOURCE / "info.toml").read_text())["meta"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", meta["version"])
    assert {"name", "author", "category"} <= set(meta)
    assert meta["blocks"] == ["TMRL_GrabData", "TMRL_SaveGhost"]


def test_script_writes_the_floats_in_order_and_sends_them_at_once() -> None:
    script = (SOURCE / "main.as").read_text()
    sources = ("Speed", "Distance", "Position.x", "Position.y", "Position.z", "InputSteer", "InputGasPedal",
               "InputIsBraking", "hasFinished", "EngineCurGear", "EngineRpm", "Velocity.x", "Velocity.z",
               "Atan2(player.AimDirection.x, player.AimDirection.z)")  # fmt: skip
    written = re.findall(r"record\.Write\((.*)\);", script)
    assert len(written) == 14
    for source, expression in zip(sources, written, strict=True):
        assert source in expression
    always, when_set = script.split("if (Setting_SendsMotion)")
    assert (always.count("record.Write("), when_set.count("record.Write(")) == (11, 3)
    assert script.count(".Write(record)") == 1


def test_script_uses_the_default_ports() -> None:
    script = (SOURCE / "main.as").read_text()
    assert f"TELEMETRY_PORT = {LiveConfig().port};" in script
    assert f"GHOST_PORT = {LiveConfig().ghost_port};" in script


def test_braces_of_the_script_are_balanced() -> None:
    script = re.sub(r"//.*", "", (SOURCE / "main.as").read_text())
    for opening, closing in ("{}", "()", "[]"):
        assert script.count(opening) == script.count(closing)
