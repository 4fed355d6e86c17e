from __future__ import annotations

from dataclasses import replace

import pytest

from algos.config import SACConfig, algorithms
from algos.faces import registration
from tests.algos.runs import make_params, make_runner


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(algorithms, "_ALGORITHMS", dict(algorithms._ALGORITHMS))
    monkeypatch.setattr(algorithms, "_OFF_POLICY", dict(algorithms._OFF_POLICY))
    monkeypatch.setattr(algorithms, "TRAIN_SCHEMAS", dict(algorithms.TRAIN_SCHEMAS))
    monkeypatch.setattr(algorithms, "_NETWORKS", dict(algorithms._NETWORKS))


class FakeFactory:
    def __init__(self):
        self.builders = {}

    def register_builder(self, name, builder):
        self.builders[name] = builder


class FakeRunner:
    def __init__(self):
        self.algo_factory, self.player_factory = FakeFactory(), FakeFactory()


def make_own_agent(base_name, params):
    return ("agent", base_name, params)


def make_own_player(params):
    return ("player", params)


def test_all_algorithms_reach_the_runner_and_builtin_names_stay():
    runner = FakeRunner()
    registration.register(runner)
    names = set(algorithms.algorithms())
    assert set(runner.algo_factory.builders) == set(runner.player_factory.builders) == names


def test_plugin_algorithm_is_built_by_name(fresh):
    place = "tests.algos.faces.test_registration"
    algorithms.add_algorithm("mine", f"{place}:make_own_agent", f"{place}:make_own_player")
    runner = FakeRunner()
    registration.register(runner)
    assert runner.algo_factory.builders["mine"](base_name="run", params=1) == ("agent", "run", 1)
    assert runner.player_factory.builders["mine"](params=2) == ("player", 2)
    assert "mine" in algorithms.algorithms()


def test_network_is_known_to_rl_games(fresh):
    from rl_games.algos_torch.model_builder import NETWORK_REGISTRY

    algorithms.add_network("own_net", "tests.algos.faces.test_registration:FakeFactory")
    registration.register_networks()
    assert isinstance(NETWORK_REGISTRY["own_net"](), FakeFactory)
    assert "tm_encoder" in NETWORK_REGISTRY


@pytest.mark.parametrize("name", ["sac", "a2c_continuous", "remote_sac"])
def test_taken_name_is_refused(fresh, name):
    with pytest.raises(ValueError, match=f"the algorithm name '{name}' is taken"):
        algorithms.add_algorithm(name, "a:B", "c:D")


def test_place_must_be_module_and_class(fresh):
    with pytest.raises(ValueError, match=r"must be 'module:Class' or 'module:function', got 'a\.B'"):
        algorithms.add_algorithm("mine", "a.B", "c:D")


def test_an_algorithm_may_have_its_own_agent(fresh, tmp_path):
    agent = "tests.algos.faces.test_registration:VariantAgent"
    algorithms.add_off_policy("fake_sac", "algos.algorithms.sac:SAC", SACConfig, agent=agent)
    params = make_params(tmp_path, max_env_steps=60)
    params["algo"] = {"name": "fake_sac"}
    make_runner(params).run({"train": True})
    from algos.run.checkpoint import load_checkpoint

    stored = load_checkpoint(tmp_path / "run" / "nn" / "last.pth")
    assert stored.algorithm == "fake_sac"
    assert stored.algorithm_state["num_updates"] == 20
    assert stored.task == "made by the variant"


def __getattr__(name):
    if name == "VariantAgent":
        from algos.faces.agent import OffPolicyAgent

        class VariantAgent(OffPolicyAgent):
            def make_checkpoint(self):
                return replace(super().make_checkpoint(), task="made by the variant")

        return VariantAgent
    raise AttributeError(name)


def test_output_of_rl_games_goes_to_the_log(caplog, capsys):
    from rl_games import torch_runner

    registration.log_prints()
    with caplog.at_level("DEBUG", "rl_games"):
        vars(torch_runner)["print"]("seq_length:", 4)
    assert caplog.messages == ["seq_length: 4"]
    assert capsys.readouterr().out == ""


def test_rl_games_own_agents_log_as_ours_do() -> None:
    from rl_games.algos_torch import sac_agent
    from rl_games.common import a2c_common

    from algos.run.summaries import open_summaries

    registration.register_summaries()
    assert vars(a2c_common)["SummaryWriter"] is open_summaries
    assert vars(sac_agent)["SummaryWriter"] is open_summaries
