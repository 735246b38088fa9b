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
import functools
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from transferlens.util import processes
from transferlens.util.errors import ParameterError, SweepError
from transferlens.util.terminal import log_to_stderr

log = logging.getLogger(__name__)

# Number of processes that may die on one item without progress between them.
DEATHS = 5
# Number of processes in a row that may die before they are ready for an item.
FALSE_STARTS = 10
# Seconds that a process has to end after it is told to.
GRACE = 20.0
# Seconds in which a cluster must answer.
ANSWER = 10.0

# Begins the names of our environment variables.
OURS = "TRANSFERLENS_"
# What is imported once, and shared by all worker processes.
PRELOADED = ["torch", "timm", "h5py", "transferlens.training.sweep", "transferlens.models.precision"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Died(Exception):
    """Several processes died while they worked on one item: by signals, or for lack of memory."""


class _Worker:
    """A process that works on one item after another.

    Attributes
    ----------
    memory : int
        The most memory that it has taken so far [bytes]; 0 while its item has not reported yet.
    """

    def __init__(self, task: Callable) -> None:
        context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload(PRELOADED)
        self.connection, other_end = context.Pipe()
        # The server that forks it has the environment of its own start.
        own = {name: value for name, value in os.environ.items() if name.startswith(OURS)}
        self.process = context.Process(target=_serve, args=(other_end, task, own), daemon=True)
        with _without_main():
            self.process.start()
        other_end.close()  # only the process keeps it open, so that receiving fails when it dies
        self.memory = 0

    def give(self, item: object) -> None:
        self.memory = 0
        with contextlib.suppress(OSError):  # the process has died, as receiving will show
            self.connection.send(item)

    def receive(self) -> tuple[str, Any]:
        """Return a message and its value: "ready", then "report" any number of times and "result" or "error"."""
        try:
            message, value, self.memory = self.connection.recv()
        except (EOFError, OSError):
            self.close()
            return "died", Died(f"the last with code {self.process.exitcode}")
        return message, value

    def close(self) -> None:
        """Wait for the end of the process; kill it if that takes too long."""
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's script from a process that starts, which would run it again."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _adopt(environment: Mapping[str, str]) -> None:
    """Set our environment variables as the parent has them now; those of the server's own start are forgotten."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    os.environ.update(environment)


def _serve(connection: Any, task: Callable, environment: Mapping[str, str]) -> None:
    """Call the task for every item received, until the connection is closed."""
    _adopt(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to_stderr(logging.WARNING)

    def send(message: str, value: object) -> None:
        connection.send((message, value, processes.most_memory()))

    with processes.reraise_lost_signals(), contextlib.suppress(EOFError):
        send("ready", None)
        while True:
            item = connection.recv()
            try:
                answer = "result", task(item, functools.partial(send, "report"))
            except Exception as error:
                answer = "error", error
            send(*answer)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, even if the parent was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _has_room(running: Collection[_Worker], needed: int) -> bool:
    """Return whether memory suffices for one more item; `needed` is what one takes [bytes], 0 if that is not known."""
    starting = sum(worker.memory == 0 for worker in running)
    return not running or (needed > 0 and (starting + 1) * needed <= processes.free_memory())


def in_processes(
    task: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    *,
    workers: int,
    spare_memory: bool = False,
    reached: Callable[[Item], object] = lambda item: None,
    report: Callable[[Item, Any], object] = lambda item, value: None,
) -> Iterator[tuple[Item, Result | Died]]:
    """Call the task for every item in processes of this machine; yield each item with the result, or with `Died`.

    Parameters
    ----------
    task : callable
        Called with an item and a function that passes a value on to `report`. Like the items it must be picklable. An
        exception of it ends all processes and is raised here.
    items : sequence
    workers : int > 0
        Processes.
    spare_memory : bool
        Whether an item waits until memory suffices for it: until another has reported, and there is as much free
        memory as the largest process has taken.
    reached : callable
        Returns the progress of an item: deaths of its processes count only since it last changed.
    report : callable
        Called with an item and what its task reports, in this process.

    Raises
    ------
    SweepError
        If processes die again and again before they are ready for an item.
    """
    waiting, running = collections.deque(items), dict[_Worker, Item]()
    deaths = collections.Counter[object]()  # per item and its progress; of None: before they began
    crew, idle, needed, is_short = list[_Worker](), list[_Worker](), 0, False
    try:
        crew += [_Worker(task) for _ in range(min(workers, len(items)))]
        while waiting or running:
            while idle and waiting and (not spare_memory or _has_room(running, needed)):
                worker = idle.pop()
                running[worker] = waiting.popleft()
                worker.give(running[worker])
            if needed and idle and waiting and not is_short:
                is_short = True
                log.warning("memory suffices for %d runs at once, %.1f GB each", len(running), needed / 1e9)
            ready = multiprocessing.connection.wait([worker.connection for worker in crew])
            for worker in [worker for worker in crew if worker.connection in ready]:
                message, value = worker.receive()
                if message == "report":
                    report(running[worker], value)
                    needed = max(needed, worker.memory)
                    continue
                item = running.pop(worker, None)
                if message == "died":
                    crew.remove(worker)
                    progress = None if item is None else (item, reached(item))
                    deaths[progress] += 1
                    if item is not None and deaths[progress] < DEATHS:
                        waiting.appendleft(item)
                    elif item is not None:
                        yield item, Died(f"{DEATHS} processes died on it without an epoch, {value}")
                    elif deaths[None] == FALSE_STARTS:
                        raise SweepError(f"{FALSE_STARTS} workers died before they began, {value}: is memory short?")
                    if waiting:
                        crew.append(_Worker(task))
                elif message == "error":
                    raise value
                else:
                    del deaths[None]
                    idle.append(worker)
                    if item is not None:
                        yield item, value
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.close()


def on_ray(
    task: Callable[[Item, Callable[[Any], None]], Result],
    items: Sequence[Item],
    *,
    address: str | None,
    cpus: float,
    gpus: float,
) -> Iterator[tuple[Item, Result | Died]]:
    """Call the task for every item, as `in_processes` does, on a Ray cluster whose machines all see the same folders.

    Reports are dropped. Each item needs `cpus` and `gpus`, which may be fractions. The address is that of the cluster's
    head, or "auto"; None starts a cluster on this machine. ParameterError is raised if Ray is not installed, the
    cluster cannot be reached, or none of its machines is large enough for an item.
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
        remote: Any = decorate(lambda item: task(item, lambda value: None))  # Ray takes functions only
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
