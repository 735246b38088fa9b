"""Where tasks run: in worker processes of this machine, or on a Ray cluster.

A task is called for every item, and each result is yielded with its item as soon as it is known. If a process dies, its
item is given to another process, until `DEATHS` processes in a row have died while they worked on it.

Worker processes may be killed at any moment, therefore each one has a pipe of its own. In the pools of
concurrent.futures, loky and pebble the workers share a pipe and its lock: one killed worker breaks the whole pool, or
leaves the lock taken.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from transferlens.util import processes
from transferlens.util.errors import ParameterError, SweepError

# Number of processes that may die on one item without progress between them.
DEATHS = 5
# Number of processes in a row that may die before they are ready for an item.
FALSE_STARTS = 10
# Seconds that a process has to end after it is told to.
GRACE = 20.0
# Seconds in which a cluster must answer.
ANSWER = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class Died(Exception):
    """Several processes died while they worked on one item: by signals, or for lack of memory."""


class _Worker:
    """A process that works on one item after another, on its own share of the cores."""

    def __init__(self, task: Callable, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.cores = cores
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(other_end, task, cores), daemon=True)
        self.process.start()
        other_end.close()  # only the process keeps it open, so that receiving fails when it dies

    def give(self, item: object) -> None:
        with contextlib.suppress(OSError):  # the process has died, as receiving will show
            self.connection.send(item)

    def receive(self) -> tuple[Any, Exception | None]:
        """Return (None, None) when the process is ready, then a result or an error per item."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.close()
            return None, Died(f"the last with code {self.process.exitcode}")

    def close(self) -> None:
        """Wait for the end of the process; kill it if that takes too long."""
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Any, task: Callable, cores: Sequence[int]) -> None:
    """Call the task for every item received, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if cores:
        os.sched_setaffinity(0, cores)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    answer: tuple[Any, Exception | None] = None, None
    with processes.reraise_lost_signals(), contextlib.suppress(EOFError):
        while True:
            connection.send(answer)
            item = connection.recv()
            try:
                answer = task(item), None
            except Exception as error:
                answer = None, error


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, even if the parent was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _shares(workers: int, cores_each: int) -> list[list[int]]:
    """Assign `cores_each` cores to every worker, by number; several workers get the same core if there are too few.

    The lists are empty on systems that cannot assign cores to a process.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(workers)]
    cores = itertools.cycle(sorted(os.sched_getaffinity(0)))
    return [sorted(set(itertools.islice(cores, cores_each))) for _ in range(workers)]


def in_processes(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    cores_each: int = 1,
    reached: Callable[[Item], object] = lambda item: None,
) -> Iterator[tuple[Item, Result | Died]]:
    """Call the task for every item in processes of this machine; yield each item with the result, or with `Died`.

    Task and items must be picklable. An exception of the task ends all processes and is raised here. `reached` returns
    the progress of an item: only deaths since its last change are counted. SweepError is raised if processes die again
    and again before they are ready for an item.
    """
    waiting, running = collections.deque(items), dict[_Worker, Item]()
    deaths = collections.Counter[object]()  # per item and its progress; of None: before they began
    crew: list[_Worker] = []
    try:
        for cores in _shares(min(workers, len(items)), cores_each):
            crew.append(_Worker(task, cores))
        while waiting or running:
            ready = multiprocessing.connection.wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                (result, error), item = worker.receive(), running.pop(worker, None)
                if isinstance(error, Died):
                    crew.remove(worker)
                    progress = None if item is None else (item, reached(item))
                    deaths[progress] += 1
                    if item is not None and deaths[progress] < DEATHS:
                        waiting.appendleft(item)
                    elif item is not None:
                        yield item, Died(f"{DEATHS} processes died on it without an epoch, {error}")
                    elif deaths[None] == FALSE_STARTS:
                        raise SweepError(f"{FALSE_STARTS} workers died before they began, {error}: is memory short?")
                    if waiting:
                        crew.append(_Worker(task, worker.cores))
                elif error is not None:
                    raise error
                else:
                    del deaths[None]
                    if item is not None:
                        yield item, result
                    if waiting:
                        running[worker] = waiting.popleft()
                        worker.give(running[worker])
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.close()


def on_ray(
    task: Callable[[Item], Result], items: Sequence[Item], *, address: str | None, cpus: float, gpus: float
) -> Iterator[tuple[Item, Result | Died]]:
    """Call the task for every item, as `in_processes` does, on a Ray cluster whose machines all see the same folders.

    Each item needs `cpus` and `gpus`, which may be fractions. The address is that of the cluster's head, or
    "auto"; None starts a cluster on this machine. ParameterError is raised if Ray is not installed, the cluster cannot
    be reached, or none of its machines is large enough for an item.
    """
    try:
        import ray
    except ImportError as error:
        raise ParameterError("engine='ray' needs Ray: pip install \"transferlens[cluster]\"") from error
    _check_reachable(address)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ParameterError(f"address={address!r} is not a Ray cluster that can be reached: {error}") from error
    try:
        _check_room(ray.nodes(), {"CPU": cpus, "GPU": gpus})
        decorate = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=DEATHS, retry_exceptions=False)
        remote: Any = decorate(lambda item: task(item))  # Ray takes functions only
        running = {remote.remote(item): item for item in items}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                result = Died(f"its processes died: {type(error).__name__}")
            yield item, result
    finally:
        ray.shutdown()  # also ends the tasks that still run


def _check_reachable(address: str | None) -> None:
    """Raise ParameterError if no server listens at an address: Ray itself would try for minutes."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ParameterError(
            f"address={address!r} is not a Ray cluster that can be reached ({error}): it must be HOST:PORT, as "
            "`ray start --head` prints it, or auto"
        ) from error


def _check_room(nodes: Sequence[dict[str, Any]], needed: dict[str, float]) -> None:
    """Raise ParameterError if no machine of a cluster has the resources that a run needs: Ray would wait for ever."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    for name, number in needed.items():
        most = max((machine.get(name, 0) for machine in machines), default=0)
        if most < number:
            raise ParameterError(f"a run takes {number:g} {name} and no machine of the cluster has more than {most:g}")
