"""Configuration of a run, its networks and algorithms. Standard library only.

Keys with their meanings: ``off_policy`` and ``family`` have ``params.config`` of ``cfg/train/*.yaml``, ``network`` has
``params.network``, ``ppo`` both of PPO, ``schema`` the keys of the run (those of tasks are in ``tasks.config``). Hydra
reads these classes as schemas (enums by member name); the learner, the agent and the acting policy read the fields.
Names follow TMRL's ``config.json`` where it has the entry, in lower case. No code writes to an instance.
"""

from algos.config.combinations import check_combination
from algos.config.family import (
    CrossQConfig,
    DAggerConfig,
    DroQConfig,
    REDQConfig,
    RSACConfig,
    SACConfig,
    TQCConfig,
)
from algos.config.network import (
    ENCODERS,
    BodyKind,
    EncoderKind,
    EncoderTraits,
    NetworkConfig,
    Normalization,
    RecurrentNetworkConfig,
    network_from_plain,
    register_encoder_name,
)
from algos.config.off_policy import (
    DebugConfig,
    OffPolicyConfig,
    OptimizerKind,
    PolicyValue,
    Precision,
    ReplayDevice,
    ReplayLearnerConfig,
    UpdateMode,
    WarmUp,
)

__all__ = [
    "ENCODERS",
    "BodyKind",
    "CrossQConfig",
    "DAggerConfig",
    "DebugConfig",
    "DroQConfig",
    "EncoderKind",
    "EncoderTraits",
    "NetworkConfig",
    "Normalization",
    "OffPolicyConfig",
    "OptimizerKind",
    "PolicyValue",
    "Precision",
    "REDQConfig",
    "RSACConfig",
    "RecurrentNetworkConfig",
    "ReplayDevice",
    "ReplayLearnerConfig",
    "SACConfig",
    "TQCConfig",
    "UpdateMode",
    "WarmUp",
    "check_combination",
    "network_from_plain",
    "register_encoder_name",
]
