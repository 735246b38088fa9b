"""Where tasks run: in worker processes of this machine, or on a Ray cluster. What they do is not known here.

A task is a callable that can be pickled; what it returns for an item comes back with the item. An item whose process
dies is given to another one, unless it has been the death of several.
"""

from __future__ import annotations

import collections
import contextlib
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

log = logging.getLogger(__name__)

__all__ = ["DEATHS", "Died", "in_processes", "on_ray"]

# Processes in a row that one item may be the death of, without getting anywhere.
DEATHS = 5
# Processes in a row that may die before they have begun.
FALSE_STARTS = 10
# Seconds that a process has to leave when it is told to.
GRACE = 20.0
# Seconds in which a cluster must answer.
ANSWER = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class Died(Exception):
    """The processes of an item died again and again: by signals, or for lack of memory."""


# ---------------------------------------------------------------------------------------------- processes


class _Worker:
    """A process that does one item after another, on cores of its own."""

    def __init__(self, task: Callable, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, task, list(cores)), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Any = None
        self.has_begun = False

    def give(self, item: Any) -> None:
        self.item, self.has_begun = item, False
        with contextlib.suppress(OSError):  # where it has died, as `answer` will say
            self.connection.send(item)

    def answer(self) -> tuple[str, Any]:
        """ "begun", "done" with the result, "raised" with the error, or "died"."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return "died", None


def _serve(connection: Any, task: Callable, cores: Sequence[int]) -> None:
    """Do items until who gives them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_follow_parent, daemon=True).start()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with processes.insisting():
        while True:
            try:
                item = connection.recv()
            except EOFError:
                return
            connection.send(("begun", None))
            try:
                answer = "done", task(item)
            except Exception as error:
                answer = "raised", error
            connection.send(answer)


def _follow_parent() -> None:
    """Nobody waits for a process whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _shares(workers: int, cores_each: int) -> list[list[int]]:
    """The cores of each worker; in a ring where there are fewer cores."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(workers)]
    there = sorted(os.sched_getaffinity(0))
    return [sorted({there[(w * cores_each + i) % len(there)] for i in range(cores_each)}) for w in range(workers)]


def in_processes(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    cores_each: int = 1,
    reached: Callable[[Item], object] = lambda item: None,
) -> Iterator[tuple[Item, Result | Died]]:
    """Do items in processes of this machine, each on its share of the cores.

    Parameters
    ----------
    task : callable
        Can be pickled. What it raises ends all.
    items : sequence
        Can be pickled.
    workers : int > 0
    cores_each : int > 0
    reached : callable
        How far an item is: where that has changed, its process did not die in vain.

    Yields
    ------
    item
    result
        What the task returned, or `Died`.
    """
    waiting, deaths = collections.deque(items), collections.Counter[Item]()
    far: dict[Item, object] = {}
    shares = _shares(min(workers, len(items)), cores_each)
    crew: list[_Worker | None] = [None] * len(shares)
    false_starts = 0
    try:
        while waiting or any(worker and worker.item is not None for worker in crew):
            for i, share in enumerate(shares):
                worker = crew[i]
                if waiting and (worker is None or worker.item is None):
                    crew[i] = worker = worker or _Worker(task, share)
                    worker.give(waiting.popleft())
            busy = [(i, worker) for i, worker in enumerate(crew) if worker and worker.item is not None]
            ready = multiprocessing.connection.wait([worker.connection for _, worker in busy])
            for i, worker in busy:
                if worker.connection not in ready:
                    continue
                item = worker.item
                kind, value = worker.answer()
                if kind == "begun":
                    worker.has_begun, false_starts = True, 0
                elif kind == "done":
                    worker.item = None
                    yield item, value
                elif kind == "raised":
                    raise value
                else:
                    _close(worker)
                    crew[i] = None
                    if not worker.has_begun:
                        false_starts += 1
                        if false_starts == FALSE_STARTS:
                            raise SweepError(
                                f"{FALSE_STARTS} worker processes died before they began: is memory short?"
                            )
                    elif far.get(item) != (now := reached(item)):
                        far[item], deaths[item] = now, 1
                    else:
                        deaths[item] += 1
                    if deaths[item] == DEATHS:
                        code = worker.process.exitcode
                        yield item, Died(f"{DEATHS} processes died on it without an epoch, the last with code {code}")
                    else:
                        waiting.appendleft(item)
    finally:
        for worker in filter(None, crew):
            worker.process.terminate()
        for worker in filter(None, crew):
            _close(worker)


def _close(worker: _Worker) -> None:
    worker.process.join(GRACE)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


# --------------------------------------------------------------------------------------------------- Ray


def on_ray(
    task: Callable[[Item], Result], items: Sequence[Item], *, address: str | None, cpus: float, gpus: float
) -> Iterator[tuple[Item, Result | Died]]:
    """Do items on a Ray cluster, all of whose machines see the same folders.

    Parameters
    ----------
    task : callable
        Can be pickled. What it raises ends all.
    items : sequence
        Can be pickled.
    address : str or None
        Of the cluster's head, or "auto"; None starts one on this machine.
    cpus, gpus : float >= 0
        What an item takes; 0.25 GPUs put four on one card.

    Yields
    ------
    item
    result
        What the task returned, or `Died`.

    Raises
    ------
    ParameterError
        Where Ray is not installed, or the cluster cannot be reached or never has room for an item.
    """
    try:
        import ray
    except ImportError as error:
        raise ParameterError("engine='ray' needs Ray: pip install \"transferlens[cluster]\"") from error
    _check_reachable(address)
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ParameterError(f"address={address!r} is no Ray cluster that can be reached: {error}") from error
    try:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for name, needed in (("CPU", cpus), ("GPU", gpus)):
            most = max((machine.get(name, 0) for machine in machines), default=0)
            if most < needed:
                raise ParameterError(
                    f"a run takes {needed:g} {name} and no machine of the cluster has more than {most:g}"
                )
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=DEATHS, retry_exceptions=False)(_call)
        running = {remote.remote(task, item): item for item in items}
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
        ray.shutdown()  # of tasks that still run, too


def _check_reachable(address: str | None) -> None:
    """Refuse an address at which nobody listens: Ray itself asks for minutes."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ParameterError(
            f"address={address!r} is no Ray cluster that can be reached ({error}): it is HOST:PORT, as "
            "`ray start --head` prints it, or auto"
        ) from error


def _call(task: Callable[[Any], object], item: object) -> object:  # Ray's types know no generic functions
    return task(item)
