"""rl_games' PPO on our tasks: its ``A2CAgent`` with our checkpoints, evaluations and signals; its learning untouched.

Registered as ``remote_ppo``. Environments step together through the REMOTE vecenv in lock step: a flat vector with
rl_games' own network where there are no images, else named fields with ``EncoderBuilder``'s network. Checkpoints have
the same names and format as those of the other algorithms; the policy in them is ``PPOPolicy``, built without an agent.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from algos.acting.deterministic import DeterministicActor
from algos.acting.policy import build_policy
from algos.config import NetworkConfig
from algos.config.schema import CheckpointMode
from algos.config.stock_params import ppo_loop
from algos.faces.evaluator import InProcessEvaluator, evaluation_seeds
from algos.faces.registration import register_networks, register_summaries
from algos.faces.rl_games_parts import NetworkBuilder, RunningMeanStd, a2c_continuous, model_builder, vecenv
from algos.faces.task_env import make_env, observation_spec
from algos.faces.training_run import TrainingRun, nothing_left
from algos.learning.learner import episode_metrics
from algos.learning.links import Evaluator, RemoteEvaluator
from algos.networks import InputLayer, build_encoder
from algos.run.checkpoint import (
    DAMAGED,
    Checkpoint,
    fits,
    fits_networks,
    load_global_rng_state,
)
from algos.run.interrupt import StopOnInterrupt
from tasks.experience.observation import Info, ObservationSpec
from tasks.process.step_watch import HangReporter
from tasks.words.nested import Plain

Observations = torch.Tensor | dict[str, torch.Tensor]
"""Of all environments: flat, or by field."""

logger = logging.getLogger(__name__)

POLICY_FUNCTION = "algos.faces.ppo:make_ppo_policy"
SAVE_PERIOD_S = 60.0
"""Time between two saves of the newest state."""


class RemotePPOAgent(a2c_continuous.A2CAgent):
    """PPO through the lock-step REMOTE vecenv.

    Args:
        base_name: rl_games' name of the run.
        params: As described in ``algos.faces.runner_params``, with ``model``, ``network`` and ``config`` of
        ``algos.config.ppo``.
    """

    algorithm_name = "remote_ppo"

    def __init__(self, base_name: str, params: Plain) -> None:
        config = dict(params["config"])
        self.run = TrainingRun(params, self.algorithm_name)
        self.loop = ppo_loop(self.run.config.train)
        env_config = _lock_step(config)
        vec_env = vecenv.create_vec_env(config["env_name"], int(config["num_actors"]), **env_config)
        info = vec_env.get_env_info()
        self.spec = observation_spec(info)
        max_env_steps = self.run.max_env_steps
        steps_per_epoch = int(config["num_actors"]) * int(config["horizon_length"])
        config |= {
            "env_info": info,
            "vec_env": vec_env,
            "env_config": env_config,
            "full_experiment_name": self.run.name,
            "max_frames": max_env_steps,
            # rl_games' linear schedule counts epochs; elsewhere max_frames ends the training
            "max_epochs": -(-max_env_steps // steps_per_epoch) if config.get("lr_schedule") == "linear" else -1,
        }
        self._policy = ppo_policy(params, self.spec)
        self._is_closed = False
        register_summaries()
        super().__init__(base_name, {**params, "network": self._policy["kwargs"]["network"], "config": config})
        self._begin_log()
        self._evaluator = self._make_evaluator(vec_env)
        vec_env.watch(self.run.stop.is_set)

    def load_networks(self, params: Plain) -> None:
        """Builds the model's builder; our networks are registered first."""
        register_networks()
        super().load_networks(params)

    def restore(self, fn: str, set_epoch: bool = True) -> None:
        """Starts from a checkpoint, as ``checkpoint_mode`` says.

        Raises:
            CheckpointError: The file cannot be read or does not fit this run.
        """
        checkpoint = self.run.load(fn, self.spec, (CheckpointMode.resume, CheckpointMode.weights))
        with fits_networks(fn):
            if self.run.config.checkpoint_mode is CheckpointMode.weights:
                self.set_weights(checkpoint.algorithm_state or {"model": checkpoint.policy["weights"]})
                return
            self.set_full_state_weights(checkpoint.algorithm_state, set_epoch)
        with fits(fn, "this run", DAMAGED):
            self.last_lr = float(checkpoint.algorithm_state["last_lr"])
            if self.frame >= self.run.max_env_steps:
                raise nothing_left(fn, f"{self.frame} steps", "max_env_steps", self.run.max_env_steps)
            self.run.go_on_from_best(checkpoint)
            self._num_episodes = int(checkpoint.counters["episodes"])
            self._elapsed_before_s = float(checkpoint.counters["elapsed_s"])
            self._plan_next()
            self.vec_env.seed(_seed_of_episodes(self.run.seed, self.frame))
            load_global_rng_state(checkpoint.rng)
        logger.info("resume of %s: %d steps", fn, self.frame)

    def save(self, fn: str) -> None:
        """Writes ``last.pth``, whatever name rl_games has in mind."""
        self._save(is_periodic=False)

    def train(self) -> tuple[float, int]:
        """rl_games' training loop, until ``max_env_steps`` or Ctrl-C.

        Returns:
            The best mean reward and the number of epochs.

        Raises:
            NotSavedError: The disk did not take what was to be saved at the end.
        """
        result = (self.last_mean_rewards, self.epoch_num)
        self._started_s = time.perf_counter()
        with StopOnInterrupt(self.run.stop):
            try:
                with HangReporter(lambda: {"the evaluation": self.run.watch.hangs_for_s()}):
                    result = super().train()
                    if self.loop.evaluation_interval and self._evaluated_frame != self.frame:
                        self._evaluate()
            except _Stopped:
                pass
            finally:
                self._finish()
        self.run.files.require_saved()
        return result

    def stop(self) -> None:
        """Ends ``train`` at the next step of the environments; it saves first."""
        self.run.stop.set()

    def close(self) -> None:
        """Ends the workers and closes files. Calling it twice is fine."""
        if self._is_closed:
            return
        self._is_closed = True
        self.vec_env.close()
        self._evaluator.close()
        self.log.close(self.run.stop)

    def env_step(self, actions: torch.Tensor) -> tuple[Observations, torch.Tensor, torch.Tensor, Info]:
        """Steps all environments and keeps the statistics of finished episodes."""
        if self.run.stop.is_set():
            raise _Stopped
        with self._until_stopped():
            result = super().env_step(actions)
        self._episodes.extend(result[3].get("episode_statistics", ()))
        return result

    def env_reset(self) -> Observations:
        """Begins new episodes in all environments."""
        with self._until_stopped():
            return super().env_reset()

    def write_stats(self, *args: object, **kwargs: object) -> None:
        """Called by rl_games after every epoch: its scalars, then ours, and what is due."""
        super().write_stats(*args, **kwargs)
        self._num_epochs_since_log += 1
        if self._num_epochs_since_log >= self.loop.log_interval:
            self._log()
        if self._next_evaluation is not None and self.frame >= self._next_evaluation:
            self._evaluate()
            if self.vec_env.is_single_game:  # it drove the evaluation
                self._begin_new_episodes()
        is_periodic = self._next_checkpoint is not None and self.frame >= self._next_checkpoint
        if is_periodic or time.perf_counter() - self._saved_s >= SAVE_PERIOD_S:
            self._save(is_periodic)
        self._plan_next()

    def get_weights(self) -> dict[str, Any]:
        """rl_games' weights by the names that they have without ``torch_compile``."""
        return {**super().get_weights(), "model": self._plain_model().state_dict()}

    def make_checkpoint(self) -> Checkpoint:
        """The present state."""
        state = self.get_full_state_weights()
        state["last_lr"] = float(self.last_lr)
        state["last_mean_rewards"] = float(np.asarray(state["last_mean_rewards"]))
        return self.run.checkpoint(
            self.spec,
            {**self._policy, "weights": self._acting_weights(), "version": max(self.epoch_num, 1)},
            state,
            {
                "env_steps": self.frame,
                "updates": self.epoch_num,
                "episodes": self._num_episodes,
                "elapsed_s": self._elapsed_s(),
            },
        )

    def _preproc_obs(self, obs_batch: Observations) -> Observations:
        """Leaves images as bytes: our network scales them itself."""
        return obs_batch

    def _begin_log(self) -> None:
        self.log = self.run.open_log(self.writer)
        self._episodes: list[Mapping[str, float]] = []
        self._num_episodes = 0
        self._num_epochs_since_log = 0
        self._logged_frame = 0
        self._evaluated_frame = -1
        self._elapsed_before_s = 0.0
        self._started_s = self._saved_s = self._logged_s = time.perf_counter()
        self._next_evaluation: int | None = None
        self._next_checkpoint: int | None = None
        self._plan_next()

    def _plan_next(self) -> None:
        """The next multiples of both intervals."""
        for name in ("evaluation", "checkpoint"):
            interval = getattr(self.loop, f"{name}_interval")
            setattr(self, f"_next_{name}", (self.frame // interval + 1) * interval if interval else None)

    def _log(self) -> None:
        now = time.perf_counter()
        self._num_episodes += len(self._episodes)
        seconds = max(now - self._logged_s, 1e-9)
        metrics = {
            **episode_metrics(self._episodes),
            "rollout/episodes": float(self._num_episodes),
            "time/env_steps": float(self.frame),
            "time/updates": float(self.epoch_num * self.mini_epochs_num * self.num_minibatches),
            "time/env_steps_per_second": (self.frame - self._logged_frame) / seconds,
            "time/elapsed_s": self._elapsed_s(),
            "train/learning_rate": float(self.last_lr),
            **self.vec_env.statistics(),
        }
        self._episodes = []
        self._logged_s, self._logged_frame, self._num_epochs_since_log = now, self.frame, 0
        self.log.scalars(metrics, self.frame, self.vec_env.workers())

    def _evaluate(self) -> None:
        report = self._evaluator(
            self._acting_weights(), max(self.epoch_num, 1), evaluation_seeds(self.loop.evaluation_episodes)
        )
        if report is None:
            return
        self._evaluated_frame = self.frame
        self.run.evaluated(report, self.frame, self.make_checkpoint)

    @contextlib.contextmanager
    def _until_stopped(self) -> Iterator[None]:
        """Turns what the vecenv raises when it was interrupted into the end of the training."""
        try:
            yield
        except RuntimeError as error:
            if self.run.stop.is_set():
                raise _Stopped from error
            raise

    def _begin_new_episodes(self) -> None:
        """Abandons running episodes between two epochs."""
        self.obs = self.env_reset()
        self.init_current_rewards(self.num_agents * self.num_actors, self.current_rewards.shape)

    def _make_evaluator(self, vec_env: Any) -> Evaluator:
        """Evaluates in this process, or where the game is when it is there only once."""
        if vec_env.is_single_game:
            if self.loop.evaluation_interval:
                vec_env.evaluate_with(self._policy)
            return RemoteEvaluator(vec_env.start, self.run.stop.is_set)
        env_name, env_config = self.config["env_name"], self.config["env_config"]
        return InProcessEvaluator(
            lambda: make_env(env_name, env_config),
            lambda: build_policy(self._policy, self.run.seed),
            self.run.stop.is_set,
            self.run.watch,
        )

    def _save(self, is_periodic: bool) -> None:
        self.run.files.save_newest(self.make_checkpoint(), is_periodic)
        self._saved_s = time.perf_counter()

    def _acting_weights(self) -> dict[str, np.ndarray]:
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._plain_model().state_dict().items()}

    def _plain_model(self) -> nn.Module:
        """The model that ``torch_compile`` has wrapped, or the model."""
        return getattr(self.model, "_orig_mod", None) or self.model

    def _elapsed_s(self) -> float:
        return self._elapsed_before_s + time.perf_counter() - self._started_s

    def _finish(self) -> None:
        try:
            self.save("last")
        finally:
            self.close()


def _seed_of_episodes(seed: int, env_steps: int) -> int:
    """What a run that goes on after so many steps draws its episodes from, so that it does not draw the first again."""
    sequence = np.random.SeedSequence(seed, spawn_key=(env_steps,))
    return int(sequence.generate_state(1)[0])


class EncoderBuilder(NetworkBuilder):
    """Builds the network ``tm_encoder``: our encoder of named fields, a shared trunk, policy and value."""

    def load(self, params: Plain) -> None:
        """Takes ``params.network``."""
        self._params = params

    def build(self, name: str, **kwargs: int) -> EncoderNetwork:
        """Builds the network."""
        return EncoderNetwork(
            self._params, actions_num=int(kwargs["actions_num"]), value_size=int(kwargs["value_size"])
        )


class EncoderNetwork(NetworkBuilder.BaseNetwork):
    """Image and vector fields to the mean and log-std of a Gaussian and a value.

    Args:
        params: ``params.network``, and ``spec`` in it (``ObservationSpec.to_json()``).
        actions_num: Number of actions.
        value_size: Number of values.
    """

    def __init__(self, params: Plain, actions_num: int, value_size: int = 1) -> None:
        super().__init__()
        config = NetworkConfig(encoder=str(params["encoder"]), feature_size=int(params["feature_size"]))
        self.inputs = InputLayer(ObservationSpec.from_json(params["spec"]), config)
        self.encoder = build_encoder(self.inputs, config)
        widths = [self.encoder.size, *params["mlp"]["units"]]
        layers: list[nn.Module] = []
        for size, width in itertools.pairwise(widths):
            layers += [nn.Linear(size, width), self.activations_factory.create(params["mlp"]["activation"])]
        self.trunk = nn.Sequential(*layers)
        self.mu = nn.Linear(widths[-1], actions_num)
        self.value = nn.Linear(widths[-1], value_size)
        initial = float(params["space"]["continuous"]["sigma_init"]["val"])
        self.sigma = nn.Parameter(torch.full((actions_num,), initial))
        with torch.no_grad():  # a new policy acts near its middle, whatever it sees
            self.mu.weight.mul_(0.01)
            self.mu.bias.zero_()

    def forward(
        self, obs_dict: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Mean, log-std, value and no recurrent state, shapes (B, A), (B, A), (B, V)."""
        features = self.trunk(self.encoder(self.inputs(obs_dict["obs"])))
        mean = self.mu(features)
        return mean, self.sigma.expand_as(mean), self.value(features), None


class PPOPolicy:
    """Acts with the model of a PPO checkpoint: named fields in, action out.

    Args:
        spec: Fields of the observation.
        model: rl_games' ``params.model``.
        network: rl_games' ``params.network``.
        normalize_input: Whether the model normalises observations.
        normalize_value: Whether the model normalises values.
        is_flat: Whether the model takes the flat vector.
        device: Where the model runs.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        model: Plain,
        network: Plain,
        normalize_input: bool,
        normalize_value: bool,
        is_flat: bool,
        device: torch.device,
    ) -> None:
        register_networks()
        self.version = 0
        self._spec = spec
        self._is_flat = is_flat
        self._device = device
        shape = spec.flat_space().shape if is_flat else {field.name: field.shape for field in spec.all_fields()}
        builder = model_builder.ModelBuilder().load({"model": dict(model), "network": dict(network)})
        build_config = {
            "actions_num": spec.action_size,
            "input_shape": shape,
            "num_seqs": 1,
            "value_size": 1,
            "normalize_value": normalize_value,
            "normalize_input": normalize_input,
        }
        with torch.random.fork_rng(devices=[]):
            self._model = builder.build(build_config).to(device).eval().requires_grad_(False)
        self._states: list[torch.Tensor] | None = None
        self.begin_episode()

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """The action for one dict observation, float32, shape (A,), in [-1, 1]."""
        inputs = {"is_train": False, "prev_actions": None, "obs": self._batch(obs), "rnn_states": self._states}
        with torch.no_grad():
            result = self._model(inputs)
        self._states = result["rnn_states"]
        action = result["mus" if deterministic else "actions"].reshape(-1)
        return action.clamp(-1.0, 1.0).cpu().numpy().astype(np.float32)

    def deterministic_actor(self) -> DeterministicActor:
        """What ``act`` does with ``deterministic``, as one network that shares the weights.

        Raises:
            ValueError: The network is a recurrent one, of a plugin.
        """
        if self._model.is_rnn():
            raise ValueError("a recurrent network of rl_games cannot be exported; RSAC's can")
        return _ClampedMean(self._model, self._spec, self._is_flat)

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Loads the model's state."""
        self._model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        self.version = version

    def begin_episode(self) -> None:
        """Forgets what a recurrent network remembers."""
        if self._model.is_rnn():
            self._states = [state.to(self._device) for state in self._model.get_default_rnn_state()]

    def state(self) -> dict[str, object]:
        """Nothing: samples come from torch's global generator."""
        return {}

    def load_state(self, state: Mapping[str, object]) -> None:
        """Nothing to load."""

    def _batch(self, obs: Mapping[str, np.ndarray]) -> torch.Tensor | dict[str, torch.Tensor]:
        if self._is_flat:
            return torch.from_numpy(self._spec.to_flat(obs)).to(self._device)[None]
        return {name: torch.from_numpy(np.asarray(obs[name])).to(self._device)[None] for name in self._spec.names}


def make_ppo_policy(
    spec: Mapping[str, object],
    model: Plain,
    network: Plain,
    normalize_input: bool,
    normalize_value: bool,
    is_flat: bool,
    seed: int,
    device: str = "cpu",
) -> PPOPolicy:
    """Builds a PPOPolicy from plain data; see there. ``seed`` is not used: the policy has no generator of its own."""
    return PPOPolicy(
        ObservationSpec.from_json(spec), model, network, normalize_input, normalize_value, is_flat, torch.device(device)
    )


def ppo_policy(params: Plain, spec: ObservationSpec) -> dict[str, Any]:
    """How to build the policy of a run: ``function`` and ``kwargs``, plain data."""
    config = params["config"]
    is_flat = config.get("observation", "flat") == "flat"
    network = {**params["network"]} if is_flat else {**params["network"], "spec": spec.to_json()}
    return {
        "function": POLICY_FUNCTION,
        "kwargs": {
            "spec": spec.to_json(),
            "model": dict(params["model"]),
            "network": network,
            "normalize_input": bool(config["normalize_input"]),
            "normalize_value": bool(config.get("normalize_value", False)),
            "is_flat": is_flat,
            "device": str(config.get("inference_device", "cpu")),
        },
    }


class _ClampedMean(DeterministicActor):
    """The mean of rl_games' model, clamped to [-1, 1], without the parts that a graph cannot have: scripted modules."""

    def __init__(self, model: Any, spec: ObservationSpec, is_flat: bool) -> None:
        super().__init__()
        self.network = model.a2c_network
        self.statistics = _unscripted(model.running_mean_std) if model.normalize_input else nn.Identity()
        self._fields = spec.visible.all_fields()
        self._is_flat = is_flat

    def forward(
        self, observation: Mapping[str, torch.Tensor], memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The action; the memory as it is."""
        inputs = self.statistics(self._flat(observation) if self._is_flat else dict(observation))
        mean, *_ = self.network({"is_train": False, "prev_actions": None, "obs": inputs, "rnn_states": None})
        return mean.clamp(-1.0, 1.0), memory

    def _flat(self, observation: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``ObservationSpec.flatten_batch`` in torch."""
        parts = [(observation[field.name].float().flatten(1) - field.offset) / field.scale for field in self._fields]
        return torch.cat(parts, dim=1)


def _unscripted(scripted: Any) -> nn.Module:
    """The module that rl_games compiled, with the same statistics."""
    plain: Any = RunningMeanStd(tuple(scripted.running_mean.shape))
    for name, _ in plain.named_buffers():
        setattr(plain, name, getattr(scripted, name))
    return plain


class _Stopped(Exception):  # noqa: N818 - not an error
    """Raised inside rl_games' loop to leave it."""


def _lock_step(config: Plain) -> dict[str, Any]:
    """Keyword arguments of the vecenv in lock step."""
    env_config = dict(config["env_config"])
    workers = min(int(env_config.get("num_workers") or 1), int(config["num_actors"]))
    return {
        **env_config,
        "policy": None,
        "observation": config.get("observation", "flat"),
        "num_workers": workers,
        "evaluator": False,
    }
