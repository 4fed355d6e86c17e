"""Networks against second methods: plain convolutions, looped critics, torch.distributions, TMRL's layer sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from algos.config import EncoderKind, NetworkConfig, Normalization
from algos.networks import (
    ActingNetwork,
    ActorNetwork,
    ConvEncoder,
    InputLayer,
    StackedLinear,
    block_kernel,
    build_networks,
    fast_matmul,
    random_shift,
    squashed_sample,
    to_blocks,
)
from algos.networks.matmul import _MATMUL
from tasks.experience.observation import Field, ObservationSpec
from tests.algos.algorithms.sac_batches import LIDAR, image_spec, random_observation

COMPACT = NetworkConfig(encoder=EncoderKind.compact_cnn)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_log_density_equals_torch_distributions() -> None:
    torch.manual_seed(0)
    mean, log_std = torch.randn(64, 3, dtype=torch.float64), torch.randn(64, 3, dtype=torch.float64)
    noise = torch.randn(64, 3, dtype=torch.float64)
    action, log_prob = squashed_sample(mean, log_std, noise)
    squash = torch.distributions.TanhTransform(cache_size=1)
    pi = torch.distributions.TransformedDistribution(torch.distributions.Normal(mean, log_std.exp()), [squash])
    expected_action = squash(mean + log_std.exp() * noise)
    assert torch.allclose(action, expected_action, atol=1e-14)
    assert torch.allclose(log_prob, pi.log_prob(expected_action).sum(-1), atol=1e-10)


def test_derivative_of_the_squashed_sample_equals_finite_differences() -> None:
    torch.manual_seed(0)
    mean, log_std, noise = torch.randn(3, 5, 2, dtype=torch.float64)
    mean.requires_grad_()
    log_std.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: squashed_sample(m, s, noise), (mean, log_std))


def test_log_density_stays_finite_where_tanh_saturates() -> None:
    mean = torch.tensor([[40.0, -60.0]], requires_grad=True)
    action, log_prob = squashed_sample(mean, torch.zeros(1, 2), torch.zeros(1, 2))
    log_prob.sum().backward()
    # log N(0) - log(1 - tanh(u)^2), and 1 - tanh(u)^2 -> 4 exp(-2|u|)
    assert log_prob.item() == pytest.approx(-np.log(2 * np.pi) - 2 * np.log(4) + 2 * (40 + 60), rel=1e-6)
    assert mean.grad is not None
    assert torch.allclose(mean.grad, torch.tensor([[2.0, -2.0]]))
    assert action.abs().max() <= 1.0


@pytest.mark.parametrize("size", [(64, 64), (67, 71), (65, 64)])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (8, 2), (6, 3)])
@pytest.mark.parametrize("is_for_numpy", [True, False])
def test_convolution_over_blocks_equals_strided_convolution(
    size: tuple[int, int], kernel: int, stride: int, is_for_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("algos.networks.images._is_for_numpy", lambda image: is_for_numpy)  # False: as on a GPU
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (3, 5, *size), dtype=torch.uint8)
    weight = torch.randn(6, 4, kernel, kernel, dtype=torch.float64)
    # The views share frames, as those of the replay memory do.
    for image in (frames[:, :4], frames[:, 1:], frames[1:, 1:].clone()):
        expected = functional.conv2d(image.double(), weight, stride=stride)
        got = functional.conv2d(to_blocks(image, kernel, stride).double(), block_kernel(weight, stride))
        assert torch.allclose(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [EncoderKind.compact_cnn, EncoderKind.shared_cnn, EncoderKind.tmrl_cnn])
def test_encoder_equals_plain_layers_on_scaled_pixels(kind: EncoderKind) -> None:
    spec = image_spec()
    layers = InputLayer(spec, NetworkConfig(encoder=kind), torch.float64)
    encoder: Any = ConvEncoder(layers, NetworkConfig(encoder=kind)).double()
    observation = random_observation(spec, np.random.default_rng(0), 5)
    pixels = (observation["images"].double() - 102) / 255
    strides = {EncoderKind.compact_cnn: (4, 2, 2)}.get(kind, (2, 2, 2, 2))
    hidden = pixels
    for layer, stride in zip(encoder.convolutions, strides, strict=True):
        hidden = functional.relu(functional.conv2d(hidden, layer.weight, layer.bias, stride))
    features = hidden.reshape(5, -1)
    if kind is not EncoderKind.tmrl_cnn:
        linear, norm = encoder.trunk[0], encoder.trunk[1]
        features = torch.tanh(
            functional.layer_norm(features @ linear.weight.T + linear.bias, (64,), norm.weight, norm.bias)
        )
    vector = [observation["speed"].double() / 55.6, observation["gear"].double() / 5]
    vector += [observation["rpm"].double() / 11000, observation["action_0"].double(), observation["action_1"].double()]
    expected = torch.cat([*vector, features], dim=1)
    got = encoder(layers(observation))
    assert torch.allclose(got, expected, rtol=0, atol=1e-9)

    parameters = list(encoder.parameters())
    weights = torch.randn(expected.shape, dtype=torch.float64)
    for one, two in zip(
        torch.autograd.grad((got * weights).sum(), parameters),
        torch.autograd.grad((expected * weights).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(one, two, rtol=0, atol=1e-9)


def test_tmrl_networks_have_the_published_sizes() -> None:
    acting, critic = build_networks(image_spec(), NetworkConfig(encoder=EncoderKind.tmrl_cnn), 2, 0)
    convolutions = 64 * 4 * 64 + 64 + 64 * 64 * 16 + 64 + 128 * 64 * 16 + 128 + 128 * 128 * 16 + 128
    assert acting.encoder.size == 137
    assert count(acting) == convolutions + (137 * 256 + 256) + (256 * 256 + 256) + (256 * 6 + 6)
    assert count(critic) == 2 * (convolutions + (140 * 256 + 256) + (256 * 256 + 256) + (256 + 1))
    assert len(critic.encoders) == 2
    assert acting.encoder not in list(critic.encoders)


def test_tmrl_cnn_actor_has_no_activation_after_the_last_hidden_layer() -> None:
    torch.manual_seed(0)
    acting = ActingNetwork(image_spec(), NetworkConfig(encoder=EncoderKind.tmrl_cnn, hidden=[16, 8]))
    features = torch.randn(5, 137)
    assert isinstance(acting.actor, ActorNetwork)
    first, last = acting.actor.hidden
    hidden = last(functional.relu(first(features)))
    assert (hidden < 0).any()
    mean, log_std = acting.actor.head(hidden).split(3, dim=1)
    assert torch.allclose(acting.actor(features)[0], mean, atol=1e-6)
    assert torch.allclose(acting.actor(features)[1], log_std, atol=1e-6)


@pytest.mark.parametrize(("has_images", "divisors"), [(True, (1000.0, 10.0, 10000.0)), (False, (1.0, 1.0, 1.0))])
def test_tmrl_scales_divide_as_its_preprocessors_do(has_images: bool, divisors: tuple[float, ...]) -> None:
    spec = image_spec() if has_images else ObservationSpec(image_spec().fields[:3])
    kind = EncoderKind.tmrl_cnn if has_images else EncoderKind.mlp
    config = NetworkConfig(encoder=kind, observation_normalization=Normalization.tmrl)
    observation = random_observation(spec, np.random.default_rng(0), 2)
    layers = InputLayer(spec, config, torch.float64)
    raw = torch.cat([observation[name] for name in ("speed", "gear", "rpm")], 1).double()
    inputs = layers(observation)
    assert torch.allclose(inputs.vector[:, :3], raw / torch.tensor(divisors, dtype=torch.float64), atol=1e-12)
    if has_images:
        encoder: Any = ConvEncoder(layers, config).double()
        hidden = observation["images"].double() / 256
        for layer in encoder.convolutions:
            hidden = functional.relu(functional.conv2d(hidden, layer.weight, layer.bias, 2))
        assert torch.allclose(encoder(inputs)[:, 9:], hidden.reshape(2, -1), atol=1e-9)


def test_actor_log_std_is_clamped() -> None:
    acting = ActingNetwork(LIDAR, NetworkConfig(hidden=[8]))
    with torch.no_grad():
        acting.actor.head.bias.copy_(torch.tensor([0.0, 0, 0, 100, -100, 0]))
    _, log_std = acting.actor(torch.zeros(1, 83))
    assert log_std[0, 0] == 2.0
    assert log_std[0, 1] == -20.0


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("encoder", [EncoderKind.mlp, EncoderKind.compact_cnn, EncoderKind.tmrl_cnn])
def test_stacked_ensemble_equals_looped_networks(encoder: EncoderKind, layer_norm: bool) -> None:
    spec = LIDAR if encoder is EncoderKind.mlp else image_spec()
    config = NetworkConfig(encoder=encoder, hidden=[16, 12], layer_norm=layer_norm)
    acting, critic = build_networks(spec, config, 5, 0, torch.float64)
    observation = random_observation(spec, np.random.default_rng(0), 4)
    action = torch.rand(4, 3, dtype=torch.float64) * 2 - 1
    inputs = acting.inputs(observation)
    got = critic(critic.encode(inputs), action)
    assert got.shape == (5, 4)
    for index in range(5):
        encoder_module = critic.encoders[index if encoder is EncoderKind.tmrl_cnn else 0]
        hidden = torch.cat([encoder_module(inputs), action], 1)
        ensemble: Any = critic.ensemble
        for position, layer in enumerate(ensemble.hidden):
            hidden = functional.linear(hidden, layer.weight[index].T, layer.bias[index, 0])
            if layer_norm:
                norm = ensemble.norms[position]
                hidden = functional.layer_norm(hidden, hidden.shape[-1:], norm.weight[index, 0], norm.bias[index, 0])
            hidden = functional.relu(hidden)
        head = critic.ensemble.head
        q = functional.linear(hidden, head.weight[index].T, head.bias[index, 0])[:, 0]
        assert torch.allclose(got[index], q, rtol=0, atol=1e-10)


def test_critics_are_initialised_independently_as_linear_layers() -> None:
    torch.manual_seed(0)
    layer = StackedLinear(10, 100, 256)
    for index in range(9):
        assert not torch.allclose(layer.weight[index], layer.weight[index + 1])
    bound = 1 / np.sqrt(100)  # nn.Linear draws U(-1/sqrt(in), 1/sqrt(in)) for weight and bias
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert layer.weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert layer.bias.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_random_shift_equals_padding_and_cropping_with_one_shift_per_sample() -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (6, 4, 9, 11), dtype=torch.uint8)
    shifted = random_shift(image, 2, generator)
    generator.manual_seed(3)
    shifts = torch.randint(-2, 3, (2, 6, 1), generator=generator)[..., 0]
    assert len({tuple(pair) for pair in shifts.T.tolist()}) > 1
    padded = functional.pad(image.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    for sample in range(6):
        top, left = 2 + int(shifts[0, sample]), 2 + int(shifts[1, sample])
        assert torch.equal(shifted[sample], padded[sample, :, top : top + 9, left : left + 11])
    assert torch.equal(random_shift(image, 0, generator), image)


def test_running_statistics_equal_those_of_all_data_and_travel_in_the_state() -> None:
    config = NetworkConfig(observation_normalization=Normalization.running)
    layers = InputLayer(LIDAR, config)
    rng = np.random.default_rng(0)
    batches = [random_observation(LIDAR, rng, size) for size in (3, 50, 8)]
    for batch in batches:
        layers.observe(batch)
    everything = torch.cat([torch.cat([b[f.name].flatten(1) for f in LIDAR.all_fields()], 1) for b in batches]).double()
    assert torch.allclose(layers.mean, everything.mean(0), rtol=1e-12)
    assert torch.allclose(layers.variance, everything.var(0, correction=0), rtol=1e-10)
    assert layers.count.item() == 61

    other = InputLayer(LIDAR, config)
    other.load_state_dict(layers.state_dict())
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    vector = other(batches[1]).vector
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())
    expected = (everything[3:53] - everything.mean(0)) / everything.std(0, correction=0)
    assert torch.allclose(vector.double(), expected, atol=1e-3)


def test_running_statistics_clip_outliers_and_survive_a_constant_field() -> None:
    layers = InputLayer(LIDAR, NetworkConfig(observation_normalization=Normalization.running))
    observation = {f.name: torch.ones(4, *f.shape) for f in LIDAR.all_fields()}
    layers.observe(observation)
    assert torch.equal(layers(observation).vector, torch.zeros(4, 83))
    observation["speed"] = torch.full((4, 1), 1e6)
    assert layers(observation).vector.max() == 10.0


@pytest.mark.parametrize("history", [0, 1, 4])
@pytest.mark.parametrize("colours", [False, True])
def test_image_channels_are_history_times_colours(history: int, colours: bool) -> None:
    spec = image_spec(history, 40, 48, colours)
    layers = InputLayer(spec, COMPACT)
    observation = random_observation(spec, np.random.default_rng(0), 2)
    image = layers.image(observation)
    channels = max(history, 1) * (3 if colours else 1)
    assert layers.image_shape == (channels, 40, 48)
    assert image is not None
    assert image.shape == (2, channels, 40, 48)
    raw = observation["images"].numpy().reshape(2, max(history, 1), 40, 48, -1)
    for frame in range(max(history, 1)):
        for colour in range(raw.shape[-1]):
            index = frame * raw.shape[-1] + colour
            np.testing.assert_array_equal(image[:, index].numpy(), raw[:, frame, :, :, colour])


def test_mlp_encoder_takes_images_flat() -> None:
    layers = InputLayer(image_spec(2, 8, 8), NetworkConfig())
    observation = random_observation(image_spec(2, 8, 8), np.random.default_rng(0), 3)
    inputs = layers(observation)
    assert inputs.image is None
    assert inputs.vector.shape == (3, 3 + 2 * 64 + 6)
    expected = (observation["images"].reshape(3, -1).float() - 102) / 255
    assert torch.allclose(inputs.vector[:, 3:131], expected, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalization", Normalization)
def test_an_observation_may_be_nothing_but_an_image(normalization: Normalization) -> None:
    picture = Field("observation", (40, 48, 3), "uint8", 0, 255, scale=255.0)
    spec = ObservationSpec((picture,), action_size=2, act_buf_len=0)
    config = NetworkConfig(encoder=EncoderKind.compact_cnn, observation_normalization=normalization)
    acting, critic = build_networks(spec, config, num_critics=2, seed=0)
    observation = random_observation(spec, np.random.default_rng(0), 5)
    acting.inputs.observe(observation)
    inputs = acting.inputs(observation)
    assert inputs.vector.shape == (5, 0)
    assert inputs.vector.dtype == torch.float32
    features = critic.encode(inputs)
    assert features.shape == (5, config.feature_size)
    assert critic(features, torch.zeros(5, 2)).isfinite().all()


def test_unsuitable_observations_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"use network\.encoder=mlp"):
        ActingNetwork(LIDAR, COMPACT)
    two = ObservationSpec((*image_spec().fields, Field("mirror", (64, 64), "uint8", 0, 255)))
    with pytest.raises(ValueError, match="exactly one image, got \\['images', 'mirror'\\]; stack them"):
        ActingNetwork(two, COMPACT)
    with pytest.raises(ValueError, match="at least 64x64 pixels, got 48x63"):
        ActingNetwork(image_spec(4, 63, 48), NetworkConfig(encoder=EncoderKind.tmrl_cnn))
    with pytest.raises(ValueError, match="at least 36x36 pixels"):
        ActingNetwork(image_spec(4, 35, 64), COMPACT)


@pytest.mark.parametrize(("kind", "size"), [(EncoderKind.tmrl_cnn, 64), (EncoderKind.compact_cnn, 36)])
def test_the_smallest_image_that_the_message_names_works(kind: EncoderKind, size: int) -> None:
    acting = ActingNetwork(image_spec(4, size, size), NetworkConfig(encoder=kind))
    observation = random_observation(image_spec(4, size, size), np.random.default_rng(0), 2)
    assert acting(observation)[0].shape == (2, 3)


def test_fast_matmul_keeps_float32_precision_and_restores_the_setting() -> None:
    before = _MATMUL.fp32_precision
    left, right = torch.randn(64, 300), torch.randn(300, 128)
    exact = left.double() @ right.double()
    with fast_matmul():
        product = left @ right
    assert _MATMUL.fp32_precision == before
    assert ((product - exact).abs().max() / exact.abs().max()).item() < 1e-5
    with pytest.raises(RuntimeError), fast_matmul():
        raise RuntimeError
    assert _MATMUL.fp32_precision == before
