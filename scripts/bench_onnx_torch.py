"""PyTorch's side of bench_onnx.py: the network as plain modules, exported by PyTorch itself.

bench_onnx_torch.py FOLDER reads FOLDER/weights.npz and writes FOLDER/torch.onnx. It needs no JAX,
and loads the weights strictly: their names are those of the implementations.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_families import TorchMobileFaceNet

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """BN, conv, BN, PReLU, conv, BN, plus shortcut; `release` as in UniFace, else arcface_torch."""

    def __init__(self, inputs: int, channels: int, stride: int, release: bool):
        super().__init__()
        self.names = ("bn0", "bn1", "bn2") if release else ("bn1", "bn2", "bn3")
        for name, size in zip(self.names, (inputs, channels, channels), strict=True):
            self.add_module(name, nn.BatchNorm2d(size))
        two = release and stride == 2
        self.conv1 = nn.Conv2d(inputs, channels, 3, 1, 1, bias=False)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(
            channels, channels, 2 if two else 3, stride, 0 if two else 1, bias=False
        )
        self.downsample = None
        if stride == 2:
            shortcut = nn.Conv2d(inputs, channels, 2 if release else 1, 2, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x):
        """[B, inputs, H, W] -> [B, channels, H / stride, W / stride]."""
        before, between, after = (getattr(self, name) for name in self.names)
        out = after(self.conv2(self.prelu(between(self.conv1(before(x))))))
        return out + (x if self.downsample is None else self.downsample(x))


class Network(nn.Module):
    """An IR-ResNet: [B, 3, 112, 112] -> [B, 512]."""

    def __init__(self, sizes: list[int], release: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(64), nn.PReLU(64)
        inputs = 64
        for stage, (size, width) in enumerate(zip(sizes, WIDTHS, strict=True), 1):
            blocks = [
                Block(inputs if k == 0 else width, width, 2 if k == 0 else 1, release)
                for k in range(size)
            ]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            inputs = width
        if release:
            self.bn4, self.fc5, self.bn5 = (
                nn.BatchNorm2d(512),
                nn.Conv2d(512, 512, 7, bias=False),
                nn.BatchNorm2d(512),
            )
            self.tail = ("bn4", "fc5", "bn5")
        else:
            self.bn2, self.fc, self.features = (
                nn.BatchNorm2d(512),
                nn.Linear(25088, 512),
                nn.BatchNorm1d(512),
            )
            self.tail = ("bn2", "fc", "features")

    def forward(self, x):
        """[B, 3, 112, 112] -> [B, 512]."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        norm, linear, last = (getattr(self, name) for name in self.tail)
        x = norm(x)
        x = linear(x if self.tail[1] == "fc5" else torch.flatten(x, 1))
        return torch.flatten(last(x), 1)


class Mirrored(nn.Module):
    """Features of x and of x mirrored, in one batch as in our graph, summed."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        """[B, 3, 112, 112] -> [B, D]."""
        plain, mirrored = self.network(torch.cat([x, torch.flip(x, (3,))])).chunk(2)
        return plain + mirrored


def network_of(state: dict[str, torch.Tensor]) -> nn.Module:
    """Return the network whose parameters have these names and shapes."""
    if "conv_sep.layers.0.weight" in state:
        within = [re.match(r"layers\.([1357])\.layers\.(\d+)\.layers\.", name) for name in state]
        found = {(match[1], match[2]) for match in within if match}
        blocks = [sum(stage == number for stage, _ in found) or 1 for number in "1357"]
        scale = len(state["layers.0.layers.0.weight"]) // 64
        return TorchMobileFaceNet(blocks, scale, len(state["features.layers.2.weight"]))
    starts = [re.match(r"layer(\d)\.\d+\.conv1\.weight", name) for name in state]
    stages = [match[1] for match in starts if match]
    return Network([stages.count(stage) for stage in "1234"], release="fc5.weight" in state)


def main(folder: Path) -> None:
    with np.load(folder / "weights.npz") as file:
        state = {name: torch.from_numpy(file[name]) for name in file.files}
    network = network_of(state)
    network.load_state_dict(state)
    network = Mirrored(network).eval()
    with torch.no_grad():
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 112, 112),),
            folder / "torch.onnx",
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
