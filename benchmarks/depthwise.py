"""Training steps with depthwise convolutions on a CPU: our bf16 against torch's bf16 autocast and fp32.

    python benchmarks/depthwise.py

torch computes the gradients of bf16 depthwise convolutions slowly where strides or kernels are large; we compute them
in bf16, too, but by other convolutions. Beside: how near both first gradients are to fp32's, and what that takes.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from claims import Claim, report

from transferlens import cli
from transferlens.models import precision
from transferlens.models.build import build
from transferlens.models.plan import TransferPlan
from transferlens.util.processes import keep_freed_memory

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time training steps on log-mel sized inputs."""

    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""
    batch_size: int = 32
    """Clips in a batch."""
    steps: int = 5
    """Steps that are timed, after one that is not."""


def contexts() -> dict[str, AbstractContextManager]:
    """The sides."""
    return {
        "ours (bf16)": precision.autocast(CPU, "bf16"),
        "torch bf16": torch.autocast("cpu", dtype=torch.bfloat16),
        "torch fp32": precision.autocast(CPU, "fp32"),
    }


def step(network: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, side: str) -> torch.Tensor:
    """Forward and backward; give the whole gradient."""
    network.zero_grad(set_to_none=True)
    with contexts()[side]:
        logits = network(x).float()
    torch.nn.functional.cross_entropy(logits, target).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def work(options: Options) -> int:
    """Time all sides."""
    keep_freed_memory()  # as in training
    if precision.fastest(CPU) != "bf16":
        print("this processor has no bf16: there is nothing to compare")
        return cli.DONE
    torch.manual_seed(0)
    network = build(options.backbone, n_classes=10, plan=TransferPlan()).train()
    network.to(memory_format=torch.channels_last)
    x = torch.randn(options.batch_size, 3, 128, 250).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 10, (options.batch_size,))
    times, gradients = {}, {}
    for side in contexts():
        gradients[side] = step(network, x, target, side)
        laps = []
        for _ in range(options.steps):
            start = time.perf_counter()
            step(network, x, target, side)
            laps.append(time.perf_counter() - start)
        times[side] = statistics.median(laps)
    ours, exact = times["ours (bf16)"], gradients["torch fp32"]
    near = {side: torch.cosine_similarity(each, exact, dim=0) for side, each in gradients.items()}
    cosines = " and ".join(f"{near[side]:.4f}" for side in list(near)[:2])
    work = f"gradient of a batch of {options.batch_size}, {options.backbone}"
    beside = f"cosine with fp32's gradient {cosines}; fp32 takes {times['torch fp32']:.3g} s"
    report(Claim(work, "torch's bf16 autocast", ours, times["torch bf16"], "s", 1, beside))
    return cli.DONE


main = cli.Command("benchmarks/depthwise.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
