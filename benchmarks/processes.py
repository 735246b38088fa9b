"""Two runs at once, a core and a thread each, against one after the other on two threads; and torch.compile.

    python benchmarks/processes.py

Training steps of EfficientNet-Lite0 as the trainer takes them on a CPU. The compiled side is timed after its first
step; what compiling took is printed beside.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from claims import Claim, apart, report

from transferlens import cli
from transferlens.models.build import skeleton


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time training steps."""

    backbone: str = "tf_efficientnet_lite0"
    """timm's name of the network."""
    steps: int = 20
    """Steps of a run."""
    compiled: bool = True
    """Whether torch.compile is timed too."""


def stepper(backbone: str, threads: int, *, compiled: bool = False) -> Callable[[], None]:
    """One training step, to be called again and again."""
    import torch

    from transferlens.models import precision
    from transferlens.models.plan import TransferPlan
    from transferlens.util import processes

    cpu = torch.device("cpu")
    torch.set_num_threads(threads)
    processes.keep_freed_memory()
    network = skeleton(backbone, n_classes=10, plan=TransferPlan.scratch())
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(32, 3, 128, 250).contiguous(memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        with precision.autocast(cpu, precision.fastest(cpu)):
            loss = forward(x).float().logsumexp(1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def run(backbone: str, threads: int, steps: int, barrier: multiprocessing.Barrier) -> float:
    """Seconds of some steps, after one, once all processes are there."""
    step = stepper(backbone, threads)
    step()
    barrier.wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - start


def compiled(backbone: str, steps: int) -> tuple[float, float, float]:
    """Seconds of some plain steps, of as many compiled ones, and of compiling."""
    found = []
    for how in (False, True):
        step = stepper(backbone, 2, compiled=how)
        start = time.perf_counter()
        step()
        first = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(steps):
            step()
        found += [time.perf_counter() - start]
    return found[0], found[1], first


def work(options: Options) -> int:
    """Time all."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        times = {}
        for n in (1, 2):
            barrier = manager.Barrier(n)
            with concurrent.futures.ProcessPoolExecutor(n, mp_context=spawn) as pool:
                jobs = [pool.submit(run, options.backbone, 3 - n, options.steps, barrier) for _ in range(n)]
                times[n] = max(job.result() for job in jobs)
    work = f"two runs of {options.steps} steps, {options.backbone}"
    report(Claim(f"{work}, at once", "one after the other, 2 threads", times[2], 2 * times[1], "s", 1))
    if options.compiled:
        plain, fast, first = apart(compiled, options.backbone, options.steps)
        print(
            f"torch.compile, not used here: {options.steps} steps in {fast:.1f} s, {plain:.1f} s without, after "
            f"{first:.0f} s of compiling, as long as {first / (plain / options.steps):.0f} steps"
        )
    return cli.DONE


main = cli.Command("benchmarks/processes.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
