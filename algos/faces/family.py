"""The rl_games faces of SAC's siblings: agents and players under their own names, all else as SAC's.

Those of a plugin's algorithm have the name under which ``algos.faces.registration.add_off_policy`` took it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from algos.algorithms.crossq import CrossQ
from algos.algorithms.droq import DroQ
from algos.algorithms.redq import REDQ
from algos.algorithms.rsac import RSAC
from algos.algorithms.tqc import TQC
from algos.config import CrossQConfig, DroQConfig, RecurrentNetworkConfig, REDQConfig, RSACConfig, TQCConfig
from algos.faces.agent import RemoteSACAgent
from algos.faces.players import RemoteSACPlayer
from algos.faces.registration import off_policy
from algos.replay.sequences import SequenceMemory


class RemoteREDQAgent(RemoteSACAgent):
    """Trains REDQ."""

    algorithm_name = "remote_redq"
    config_type = REDQConfig
    algorithm_type = REDQ


class RemoteDroQAgent(RemoteSACAgent):
    """Trains DroQ."""

    algorithm_name = "remote_droq"
    config_type = DroQConfig
    algorithm_type = DroQ


class RemoteTQCAgent(RemoteSACAgent):
    """Trains TQC."""

    algorithm_name = "remote_tqc"
    config_type = TQCConfig
    algorithm_type = TQC


class RemoteCrossQAgent(RemoteSACAgent):
    """Trains CrossQ."""

    algorithm_name = "remote_crossq"
    config_type = CrossQConfig
    algorithm_type = CrossQ


class RemoteRSACAgent(RemoteSACAgent):
    """Trains recurrent SAC: its replay memory draws sequences."""

    algorithm_name = "remote_rsac"
    config_type = RSACConfig
    network_type = RecurrentNetworkConfig
    algorithm_type = RSAC

    def _make_memory(self) -> SequenceMemory:
        assert isinstance(self.algorithm, RSAC)
        config, network = self.algorithm.config, self.algorithm.network
        return SequenceMemory(
            self.spec,
            config.memory_size,
            config.n_step,
            config.gamma,
            self._seed,
            state_size=network.gru_size,
            burn_in=config.burn_in,
            sequence_length=config.sequence_length,
            check_samples=config.debug.check_samples,
        )


class PluginAgent(RemoteSACAgent):
    """Trains an algorithm of a plugin."""

    def __init__(self, base_name: str, params: Mapping[str, Any]) -> None:
        self.algorithm_name = str(params["algo"]["name"])
        entry = off_policy(self.algorithm_name)
        module, _, class_name = entry.algorithm.partition(":")
        self.algorithm_type = getattr(importlib.import_module(module), class_name)
        self.config_type, self.network_type = entry.config_type, entry.network_type
        super().__init__(base_name, params)


class FamilyPlayer(RemoteSACPlayer):
    """Plays what any of these agents trained."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.algorithm_name = str(params["algo"]["name"])
        super().__init__(params)
