"""A user's own file adds tasks, algorithms and observers by name, in train.py and in the workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from tasks.plugins import load_plugins, plugin_paths
from tests.algos.encoders import forget

PLUGIN = """
import torch

from algos.networks import add_encoder
from algos.run.observers import add_observer
from algos.config.algorithms import add_algorithm
from tasks import registry
from tasks.trackmania.lidar import LidarInterface


class WideInterface(LidarInterface):
    pass


class Encoder(torch.nn.Module):
    def __init__(self, inputs, config):
        super().__init__()
        self.layer = torch.nn.Linear(inputs.vector_size, config.feature_size)
        self.size = config.feature_size

    def forward(self, inputs):
        return self.layer(inputs.vector).tanh()


class Watcher:
    def __init__(self):
        self.calls = []

    def after_init(self, algo):
        self.calls.append(algo)


registry.register("{task}", "{module}:WideInterface", defaults={{"window_width": 958, "window_height": 488}})
add_observer("{task}Watcher", "{module}:Watcher")
add_algorithm("{task}_sac", "{module}:Agent", "algos.faces.players:RemotePlayer")
add_encoder("{task}_encoder", Encoder, reads_images=False)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    module = f"plugin_{tmp_path.name}"
    file = tmp_path / f"{module}.py"
    file.write_text(PLUGIN.format(task=f"Task_{tmp_path.name}", module=module))
    path = list(sys.path)
    yield file
    sys.path[:] = path
    sys.modules.pop(module, None)
    forget(f"Task_{tmp_path.name}_encoder")


def test_a_users_task_and_observer_are_found_by_name(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = f"Task_{plugin.parent.name}"
    seen = []
    monkeypatch.setattr(train, "run", lambda composed, role, words: seen.append(train.prepare(composed, role, words)))
    words = ["task=TM20Lidar", f"task.name={task}", "task.game=sim", "task.track=short", f"observers=[{task}Watcher]"]
    assert train.main([*words, f"+plugins=[{plugin.name}]"]) == 0
    config = seen[0]["config"]
    assert config["env_name"] == task
    assert config["env_config"]["plugins"] == [plugin.name]


def test_a_users_algorithm_may_take_the_configuration_of_sac(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"Task_{plugin.parent.name}_sac"
    seen = []
    monkeypatch.setattr(train, "run", lambda composed, role, words: seen.append(train.prepare(composed, role, words)))
    words = ["task=TM20Lidar", "task.game=sim", "task.track=short", f"train.params.algo.name={name}"]
    assert train.main([*words, f"plugins=[{plugin.name}]"]) == 0
    assert seen[0]["algo"] == {"name": name}
    assert seen[0]["config"]["run"].train.params.config.batch_size == 256


def test_a_users_encoder_is_found_by_name(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"Task_{plugin.parent.name}_encoder"
    seen = []
    monkeypatch.setattr(train, "run", lambda composed, role, words: seen.append(train.prepare(composed, role, words)))
    words = ["task=TM20Lidar", "task.game=sim", "task.track=short", f"train.params.network.encoder={name}"]
    assert train.main([*words, f"plugins=[{plugin.name}]"]) == 0
    assert seen[0]["config"]["run"].train.params.network.encoder == name
    assert seen[0]["config"]["env_config"]["policy"]["kwargs"]["network"]["encoder"] == name


def test_a_users_encoder_must_suit_what_the_task_observes(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"Task_{plugin.parent.name}_encoder"
    words = ["task=TM20Full", "train=TM20FullSAC", f"train.params.network.encoder={name}", f"plugins=[{plugin.name}]"]
    assert train.main(words) == 2
    assert f"train.params.network.encoder is {name}, which reads none" in capsys.readouterr().err


def test_a_users_training_without_our_schema_is_passed_on_unchanged(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"Task_{plugin.parent.name}_sac"
    folder = plugin.parent / "own"
    (folder / "train").mkdir(parents=True)
    yaml = f"max_env_steps: 50\nparams: {{algo: {{name: {name}}}, config: {{depth: 3}}}}\n"
    (folder / "train" / "Mine.yaml").write_text(yaml)
    seen = []
    monkeypatch.setattr(train, "run", lambda composed, role, words: seen.append(train.prepare(composed, role, words)))
    words = ["task=TM20Lidar", "train=Mine", "task.game=sim", "task.track=short", f"--config-dir={folder}"]
    assert train.main([*words, f"plugins=[{plugin.name}]"]) == 0
    config = seen[0]["config"]
    assert (config["depth"], config["run"].max_env_steps, config["name"]) == (3, 50, "Mine")


def test_without_the_plugin_the_task_is_unknown(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["task.name=Nothing"]) == 2
    message = capsys.readouterr().err
    assert "unknown task 'Nothing'" in message
    assert "TM20Lidar" in message


def test_a_file_is_run_once_and_its_classes_can_be_imported(plugin: Path) -> None:
    (first,) = load_plugins([str(plugin)])
    (second,) = load_plugins(plugin_paths([plugin.name]))
    assert first is second
    assert sys.modules[plugin.stem] is first


def test_an_exception_in_a_plugin_keeps_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / f"broken_{tmp_path.name}.py"
    file.write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_plugins([str(file)])
    assert file.stem not in sys.modules


@pytest.mark.parametrize("name", ["missing.py", "folder", "notes.txt"])
def test_only_python_files_are_plugins(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("x = 1\n")
    with pytest.raises(ValueError, match=f"{name} is not a Python file"):
        load_plugins([str(tmp_path / name)])


def test_a_plugin_may_not_hide_a_module(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text("")
    with pytest.raises(ValueError, match="taken by the module 'json'"):
        load_plugins([str(file)])
