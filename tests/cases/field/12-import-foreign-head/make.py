"""Adds what a Lightning module or a DDP classifier keeps beside the backbone.

Usage: make.py BASE.safetensors OUT.safetensors
BASE is written by:
python -m uniface_jax.export --workdir=runs/demo --format=safetensors
  --output=BASE.safetensors
"""

import sys

import numpy as np
from safetensors.numpy import load_file, save_file

state = {f"model.{k}": v for k, v in load_file(sys.argv[1]).items()}
state["head.kernel"] = np.zeros((128, 30), np.float32)
save_file(state, sys.argv[2])
