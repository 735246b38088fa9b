"""Where a training step spends its time, by kind of operation, and what share of the machine's peak it reaches.

    python benchmarks/operations.py

Steps are those of the trainer. The peak is the best rate of a large matrix product of the same precision and number of
threads in the same run; the share of a step is the rate of its convolutions and products, counted over the whole step.
Writes benchmarks/operations.md.
"""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import apart, markdown

from transferlens import cli
from transferlens.models.build import skeleton
from transferlens.models.plan import TransferPlan
from transferlens.util.processes import cores

# Kinds of operations, by the names that torch's profiler gives them; the first that fits counts.
KINDS = {
    "convolution": ("convolution", "conv2d", "mm", "addmm"),
    "BatchNorm": ("batch_norm",),
    "activation": ("clamp", "hardtanh", "relu", "threshold", "silu", "sigmoid"),
    "copies": ("copy", "clone", "_to_copy", "contiguous", "fill", "zero"),
    "concatenation": ("cat", "slice", "narrow"),
    "pooling, sums": ("pool", "mean", "sum", "add"),
    "optimiser": ("adam",),
}
DEPTHWISE = "depthwise convolution"
COLUMNS = (DEPTHWISE, *KINDS, "other")
# Rows, inner size and columns of the products that give the peak.
PRODUCTS = ((2048, 2048, 2048), (8192, 512, 512))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Profile training steps."""

    backbone: tuple[str, ...] = ("tf_efficientnet_lite0", "resnet50", "densenet201")
    """timm's names of the networks."""
    precision: tuple[str, ...] = ()
    """Precisions. Default: fp32, and bf16 where the processor has it."""
    threads: tuple[int, ...] = tuple(sorted({1, cores()}))
    """Numbers of threads."""
    batch_size: int = 32
    """Clips in a batch."""
    steps: int = 3
    """Steps that are profiled, after two that are not."""


def peak(dtype: Any) -> float:
    """Return the best rate of some products [operations per second]."""
    import torch

    best = 0.0
    for n, k, m in PRODUCTS:
        a, b = torch.ones(n, k, dtype=dtype), torch.ones(k, m, dtype=dtype)
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * n * k * m / (time.perf_counter() - start))
    return best


def stepper(backbone: str, precision: str, batch_size: int) -> tuple[Callable[[], None], int]:
    """Return one training step, to be called again and again, and its number of operations."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from transferlens.models.precision import autocast
    from transferlens.util.processes import keep_freed_memory

    keep_freed_memory()
    network = skeleton(backbone, n_classes=10, plan=TransferPlan.scratch())
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(batch_size, 3, 128, 250).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with autocast(torch.device("cpu"), precision):
            loss = network(x).float().logsumexp(1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    # Gradients by inputs and by weights take as many operations each; torch counts those of groups wrongly.
    return step, 3 * counter.get_total_flops()


def kind(name: str, shapes: list[list[int]]) -> str:
    """Return the kind of an operation by its name and the shapes of its inputs."""
    found = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")
    weights = [shape for shape in shapes[1:3] if len(shape) == 4 and shape[1] == 1]
    return DEPTHWISE if found == "convolution" and weights else found


def profile(backbone: str, precision: str, threads: int, options: Options) -> tuple[float, float, dict[str, float]]:
    """Return the seconds of a step, its share of the peak, and the share of each kind of operation."""
    import torch

    torch.set_num_threads(threads)
    best = peak(torch.bfloat16 if precision == "bf16" else torch.float32)
    step, operations = stepper(backbone, precision, options.batch_size)
    step()
    step()
    start = time.perf_counter()
    for _ in range(options.steps):
        step()
    seconds = (time.perf_counter() - start) / options.steps
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        step()
    kinds: collections.Counter[str] = collections.Counter()
    for event in profiler.key_averages(group_by_input_shape=True):
        kinds[kind(event.key, event.input_shapes)] += event.self_cpu_time_total
    whole = sum(kinds.values())
    shares = {name: kinds[name] / whole for name in COLUMNS}
    return seconds, operations / seconds / best, shares


def work(options: Options) -> int:
    """Profile all, print and write the table."""
    import torch

    from transferlens.models.precision import fastest

    own = dict.fromkeys((fastest(torch.device("cpu")), "fp32"))
    head = ["network", "precision", "threads", "step [s]", "share of peak", *COLUMNS]
    rows = [head]
    for backbone in options.backbone:
        for precision in options.precision or own:
            for threads in options.threads:
                seconds, share, shares = apart(profile, backbone, precision, threads, options)
                measured = [f"{seconds:.2f}", f"{share:.0%}", *(f"{value:.0%}" for value in shares.values())]
                rows.append([backbone, precision, str(threads), *measured])
                print(" | ".join(rows[-1]), flush=True)
    (Path(__file__).parent / "operations.md").write_text(
        f"## Training steps by kind of operation\n\n{markdown(rows)}\n"
    )
    return cli.DONE


main = cli.Command("benchmarks/operations.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
