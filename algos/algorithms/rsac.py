"""Recurrent Soft Actor-Critic: SAC on sequences, with a GRU whose stored state is burnt in before learning.

Papers: Kapturowski et al., "Recurrent Experience Replay in Distributed Reinforcement Learning" (R2D2), ICLR 2019,
https://openreview.net/forum?id=r1lyTjAqYX, section 3; SAC as in ``algos.algorithms.sac``. docs/algorithms/recurrent.md
pairs equations, functions and metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from algos.algorithms.replay_device import chosen_replay_device
from algos.algorithms.sac import SAC
from algos.config import RecurrentNetworkConfig, RSACConfig
from algos.networks import Inputs, Networks, RecurrentEncoder, SequenceInputs
from algos.replay.memory import Batch
from algos.replay.sequences import SequenceBatch, SequenceMemory
from tasks.experience.observation import ObservationSpec


class RSAC(SAC):
    """SAC whose encoders remember. Losses, targets and optimisers are SAC's, over all transitions of all sequences.

    Where actor and critics share the encoder, the critics train one GRU, and every GRU begins with the state that the
    acting policy had: R2D2's stored state. Where each has its own, those of the critics begin the burn-in with zeros.
    """

    config: RSACConfig
    network: RecurrentNetworkConfig

    def build(self, spec: ObservationSpec, seed: int) -> None:
        """SAC's networks; refuses a shape without a memory."""
        if not isinstance(self.network, RecurrentNetworkConfig):
            raise ValueError(f"recurrent SAC needs a network with gru_size, got {type(self.network).__name__}")
        super().build(spec, seed)

    def make_memory(self, spec: ObservationSpec, seed: int) -> SequenceMemory:
        """A replay memory that draws sequences and stores what the policy remembered."""
        config = self.config
        return SequenceMemory(
            spec,
            config.memory_size,
            config.n_step,
            config.gamma,
            seed,
            state_size=self.network.gru_size,
            burn_in=config.burn_in,
            sequence_length=config.sequence_length,
            check_samples=config.debug.check_samples,
            device=chosen_replay_device(config, spec, self.device),
        )

    def make_networks(self, spec: ObservationSpec, seed: int) -> Networks:
        """SAC's, with a GRU behind every encoder."""
        networks = super().make_networks(spec, seed)
        for encoder in networks.critic.encoders:
            assert isinstance(encoder, RecurrentEncoder)
            encoder.reads_stored_state = encoder is networks.acting.encoder
        return networks

    def prepare(self, batch: SequenceBatch) -> tuple[Batch, Inputs, Inputs]:  # type: ignore[override]
        """The transitions of the sequences, and where the networks find what they see of o_t and of o_{t+k}.

        Returns:
            Transitions without observations, (K, ...), and the same sequences twice: with the rows of o_t, and with
            those of o_{t+k}. They stand where SAC has ``Inputs``; only the recurrent encoders look into them.
        """
        burn_in, window = self._rows(batch.burn_in), self._rows(batch.window)
        has_burn_in = all(len(values) for values in burn_in.values())
        rows, next_rows = batch.rows.to(self.device), batch.next_rows.to(self.device)
        self.acting.inputs.observe({name: values[rows] for name, values in window.items()})
        inputs = SequenceInputs(
            burn_in=self._inputs(burn_in) if has_burn_in else None,
            window=self._inputs(window),
            state=batch.state.to(self.device, self._dtype),
            burn_in_rows=batch.burn_in_rows.to(self.device),
            rows=rows,
        )
        numbers = (batch.action, batch.reward, batch.discount, batch.terminated)
        action, reward, discount, terminated = (self._on_device(values) for values in numbers)
        return Batch({}, action, reward, discount, {}, terminated), inputs, inputs._replace(rows=next_rows)  # type: ignore[return-value]

    def _rows(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fields (B, R, ...) on the device with all rows of all sequences in one axis, (B * R, ...)."""
        return {name: self._on_device(values).flatten(0, 1) for name, values in observation.items()}
