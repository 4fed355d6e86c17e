"""SAC's update as one compiled function of JAX, with the layers of ours, LIDAR; sampling included."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.rows.updates import ROWS, Update
from tasks.experience.observation import ObservationSpec

RATE, POLYAK, ALPHA, GAMMA = 3e-4, 0.995, 0.01, 0.99


def jax_update(spec: ObservationSpec, batch_size: int) -> Update:
    """One sampled update of critics, actor and targets; the temperature is fixed."""
    import jax
    import jax.numpy as jnp

    seen, acts = sum(field.size for field in spec.all_fields()), spec.action_size
    rng = np.random.default_rng(0)

    def layers(networks: int, *widths: int) -> list[tuple[Any, Any]]:
        return [
            (jnp.asarray(rng.normal(0, a**-0.5, (networks, a, b)), jnp.float32), jnp.zeros((networks, 1, b)))
            for a, b in pairwise(widths)
        ]

    def forward(network: list[tuple[Any, Any]], x: Any) -> Any:
        for index, (weight, bias) in enumerate(network):
            x = jnp.matmul(x, weight) + bias
            x = jax.nn.relu(x) if index + 1 < len(network) else x
        return x

    def act(actor: list[tuple[Any, Any]], obs: Any, key: Any) -> tuple[Any, Any]:
        mean, log_std = jnp.split(forward(actor, obs)[0], 2, -1)
        log_std = jnp.clip(log_std, -20, 2)
        noise = jax.random.normal(key, mean.shape)
        raw = mean + jnp.exp(log_std) * noise
        density = -0.5 * noise**2 - log_std - 0.9189385 - 2 * (0.6931472 - raw - jax.nn.softplus(-2 * raw))
        return jnp.tanh(raw), density.sum(-1)

    def judge(critic: list[tuple[Any, Any]], obs: Any, action: Any) -> Any:
        return forward(critic, jnp.concatenate([obs, action], -1))[..., 0]

    def adam(weights: Any, gradients: Any, moments: Any, count: Any) -> tuple[Any, Any]:
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradients)
        scale = RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        moved = jax.tree.map(lambda w, m, v: w - scale * m / (jnp.sqrt(v) + 1e-8), weights, first, second)
        return moved, (first, second)

    @jax.jit
    def step(state: dict[str, Any], batch: tuple[Any, ...]) -> dict[str, Any]:
        obs, action, reward, next_obs = batch
        key, one, two = jax.random.split(state["key"], 3)
        next_action, density = act(state["actor"], next_obs, one)
        target = reward + GAMMA * (judge(state["target"], next_obs, next_action).min(0) - ALPHA * density)

        def critic_loss(critic: Any) -> Any:
            return jnp.mean((judge(critic, obs, action) - target) ** 2)

        critic, critic_moments = adam(
            state["critic"], jax.grad(critic_loss)(state["critic"]), state["critic_moments"], state["count"]
        )

        def actor_loss(actor: Any) -> Any:
            chosen, log_prob = act(actor, obs, two)
            return jnp.mean(ALPHA * log_prob - judge(critic, obs, chosen).min(0))

        actor, actor_moments = adam(
            state["actor"], jax.grad(actor_loss)(state["actor"]), state["actor_moments"], state["count"]
        )
        return {
            "actor": actor,
            "critic": critic,
            "target": jax.tree.map(lambda t, c: POLYAK * t + (1 - POLYAK) * c, state["target"], critic),
            "actor_moments": actor_moments,
            "critic_moments": critic_moments,
            "count": state["count"] + 1,
            "key": key,
        }

    actor, critic = layers(1, seen, 256, 256, 2 * acts), layers(2, seen + acts, 256, 256, 1)

    def moments(weights: Any) -> tuple[Any, Any]:
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return zeros, zeros

    state = {
        "actor": actor,
        "critic": critic,
        "target": critic,
        "actor_moments": moments(actor),
        "critic_moments": moments(critic),
        "count": jnp.ones(()),
        "key": jax.random.key(0),
    }
    columns = [rng.normal(size=(ROWS, *shape)).astype(np.float32) for shape in ((seen,), (acts,), (), (seen,))]

    def update() -> None:
        nonlocal state
        rows = rng.integers(0, ROWS, batch_size)
        state = step(state, tuple(column[rows] for column in columns))
        jax.block_until_ready(state)

    return update
