"""Package description. Tool settings are in pyproject.toml; the commands for developers are in the Makefile."""

from pathlib import Path

from setuptools import find_packages, setup

# Three versions are exact: rl_games' hooks and rtgym's timing are relied on as they are, and torch's kernels decide
# whether a run repeats bit for bit. The rest are ranges that are known to work.
INSTALL_REQUIRES = [
    "torch==2.13.0",
    "rl_games==1.6.5",
    "rtgym==0.16",
    "gymnasium>=1.0,<2",
    "hydra-core>=1.3.2,<1.4",
    "omegaconf>=2.3,<2.4",
    "PyYAML>=6,<7",
    "numpy>=2.0,<3",
    "numba>=0.61,<1",
    "opencv-python-headless>=4.10,<6",
    "Pillow>=10.3",
    "tensorboard>=2.17,<3",
    "tensorboardX>=2.6,<3",
    "rich>=13.7,<16",
    "matplotlib>=3.9,<4",
    "Jinja2>=3.1,<4",
    "MarkupSafe>=2.1,<4",
    "imageio-ffmpeg>=0.5,<1",
    "grpcio>=1.66,<2",
    "safetensors>=0.5,<1",
    "zstandard>=0.23,<1",
    "lzallright>=0.2.6,<1",
    "cryptography>=43",
]

ORACLE = ["casadi==3.8.2"]
ONNX = ["onnx==1.23.2", "onnxruntime==1.32.0"]

EXTRAS_REQUIRE = {
    # the live game: screen capture, virtual gamepad, window lookup on Linux
    "game": ["mss>=10.2,<11", "vgamepad==0.2.0", "python-xlib>=0.33; sys_platform == 'linux'", "psutil>=5.9"],
    # --drive, and the stand-in game: a window, keys and game pads
    "drive": ["pygame-ce>=2.5,<3"],
    # task=Gym task.id=InvertedPendulum-v5, Hopper-v5, ...
    "mujoco": ["gymnasium[mujoco]"],
    # workers on the nodes of a Ray cluster
    "cluster": ["ray==2.60.0"],
    # minimum-time laps to compare with
    "oracle": ORACLE,
    # --export onnx, and docs/examples/drive_onnx.py, which needs onnxruntime alone
    "onnx": ONNX,
    "wandb": ["wandb>=0.18,<1"],
    "trackio": ["trackio==0.43.0"],
    # what `make test` and the benchmarks need
    "dev": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.9",
        "mypy>=1.13",
        "codespell>=2.3",
        "stable-baselines3>=2.4,<3",
        "gymnasium[box2d,mujoco]",
        *ORACLE,
        *ONNX,
        # the live path is tested against a stand-in game; vgamepad installs a driver on Windows, so not by itself there
        "mss>=10.2,<11",
        "pygame-ce>=2.5,<3",
        "python-xlib>=0.33; sys_platform == 'linux'",
        "vgamepad==0.2.0; sys_platform == 'linux'",
    ],
}

setup(
    name="tm20-rl",
    version="0.1.0",
    description="Teaches an AI to drive TrackMania 2020 in real time: rl_games, REMOTE workers, embedded simulator",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["tasks", "tasks.*", "algos", "algos.*"]),
    package_data={"tasks.sim": ["tracks/*.json"], "tasks.live": ["plugin/*/*"], "tasks.roles.report": ["page.html"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
