"""Drives with an exported policy: onnxruntime and an environment, without PyTorch.

python docs/examples/drive_onnx.py best.onnx                                        in the simulator
python docs/examples/drive_onnx.py best.onnx game=live clock=wall track=path.npy    in the live game
"""

import json
import sys

import numpy as np
import onnxruntime

import tasks

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
overrides = dict(word.split("=", 1) for word in sys.argv[2:])
env = tasks.make(about["task"], observation="dict", config=json.loads(about["task_config"]), **overrides)
shapes = {entry["name"]: entry["shape"] for entry in json.loads(about["inputs"])}
# What a recurrent policy remembers: zeros at first, then what it gave.
memory = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items() if name == "memory"}

observation, info = env.reset(seed=0, options={"from_start": True})
is_over = False
while not is_over:
    inputs = {name: observation[name][None] for name in shapes if name not in memory}
    action, *after = session.run(None, {**inputs, **memory})
    memory = dict(zip(memory, after, strict=True))
    observation, reward, terminated, truncated, info = env.step(action[0])
    is_over = terminated or truncated
print({name: round(value, 3) for name, value in info["episode_statistics"].items()})
env.close()
