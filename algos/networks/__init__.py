"""Networks: inputs by name, encoders, the squashed-Gaussian actor and the stacked ensemble of critics.

Called by ``algos.algorithms.sac`` (and what derives from it) for training and by ``algos.acting.policy`` for acting.
Pure functions of their inputs: no optimiser, no random draw after construction except where a generator is given.
"""

from algos.networks.actor import LOG_STD_MAX, LOG_STD_MIN, ActingNetwork, ActorNetwork, ResidualActor, copy_weights
from algos.networks.batch_renorm import BatchRenorm, batch_statistics
from algos.networks.critics import CriticNetwork, Networks, build_estimator, build_networks
from algos.networks.encoders import ConvEncoder, Encoder, FlatEncoder, add_encoder, build_encoder
from algos.networks.ensemble import CriticEnsemble, ResidualEnsemble
from algos.networks.images import block_kernel, random_shift, to_blocks
from algos.networks.inputs import InputLayer, Inputs, PrivilegedLayer, convolutions, is_image
from algos.networks.layers import Dropout, StackedLayerNorm, StackedLinear, draw_from, frozen, in_full
from algos.networks.matmul import chosen_precision, fast_matmul, multiplies_bfloat16, products
from algos.networks.recurrent import RecurrentEncoder, SequenceInputs
from algos.networks.sampling import squashed_sample

__all__ = [
    "LOG_STD_MAX",
    "LOG_STD_MIN",
    "ActingNetwork",
    "ActorNetwork",
    "BatchRenorm",
    "ConvEncoder",
    "CriticEnsemble",
    "CriticNetwork",
    "Dropout",
    "Encoder",
    "FlatEncoder",
    "InputLayer",
    "Inputs",
    "Networks",
    "PrivilegedLayer",
    "RecurrentEncoder",
    "ResidualActor",
    "ResidualEnsemble",
    "SequenceInputs",
    "StackedLayerNorm",
    "StackedLinear",
    "add_encoder",
    "batch_statistics",
    "block_kernel",
    "build_encoder",
    "build_estimator",
    "build_networks",
    "chosen_precision",
    "convolutions",
    "copy_weights",
    "draw_from",
    "fast_matmul",
    "frozen",
    "in_full",
    "is_image",
    "multiplies_bfloat16",
    "products",
    "random_shift",
    "squashed_sample",
    "to_blocks",
]
