"""Training of one run: from a configuration to a finished run file, one checkpoint per epoch.

- `train` trains a run to its end, continues an interrupted one from its last epoch, or reads a finished one.
- `Trainer` holds a network in training: its epochs, its state, its resumption.
- `untrained` is its network before training.

The same configuration on the same kind of processor gives the same bits, however often training was interrupted.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferlens import __version__
from transferlens.features.augment import VariantCache
from transferlens.measures.scoring import commonest
from transferlens.models import batchnorm, build, torchvision
from transferlens.models.forward import PASS_SIZE, forward, over_shifts, seeded, threads_of
from transferlens.models.weights import Source, Weights
from transferlens.store.config import RunConfig
from transferlens.store.run import Run, load_run, normalised
from transferlens.store.runfile import RunState, read_state, to_torch, write_state
from transferlens.store.schema import history_names
from transferlens.store.sources import named_by, origins, recordings_of
from transferlens.training import objective, optimiser
from transferlens.training.batches import Data, balanced, chunks
from transferlens.training.normalisation import normalisation_of_input
from transferlens.util import lazy
from transferlens.util.errors import CheckpointError, MachineError
from transferlens.util.lazy import torch
from transferlens.util.processes import forget_most_memory, keep_freed_memory, most_memory

if TYPE_CHECKING:
    from transferlens.models.network import Network

precision = lazy.load("transferlens.models.precision")

log = logging.getLogger(__name__)

CALL = "TRANSFERLENS_CALL"  # the environment variable that names the study that a run is trained for
DIVERGED = "training diverged, lower the learning rate"


def untrained(config: RunConfig, n_classes: int, weights: Sequence[Weights]) -> Network:
    """Return the network of a run before training, in training mode and on the CPU.

    `weights` are those of the sources of its plan, in their order.
    """
    network = build.skeleton(
        config.backbone, n_classes=n_classes, plan=config.plan, seed=config.seed, input_size=config.input_size
    )
    if config.training.network == "torchvision":
        torchvision.adapt(network, config.backbone)
    states = {letter: each.state for letter, each in zip(config.plan.letters, weights, strict=True)}
    network.load_pretrained(states, seed=config.seed)
    return network


def _environment(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a run depend on besides its configuration."""
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
    }


class Trainer:
    """A network in training.

    Parameters
    ----------
    config : RunConfig
    data : Data
    sources : sequence of Source
        Among them those whose weights the configuration names by their hashes.
    run_frozen_once : bool
        Whether to compute the outputs of frozen blocks once, not in every epoch. If their BatchNorm statistics are
        updated, the outputs change and are always computed in every epoch.
    """

    def __init__(
        self, config: RunConfig, data: Data, sources: Sequence[Source] = (Source(),), *, run_frozen_once: bool = True
    ) -> None:
        keep_freed_memory()
        self.config, self.data = config, data
        self.start = config.start if run_frozen_once else 0
        training = config.training
        self.variants = None if training.augmentation is None else data.variants(training.augmentation)
        self.rows, self.held_out = data.dataset.split(*config.split)
        self.inner = data.dataset.split(config.inner_fold)[1] if config.inner_fold else np.empty(0, int)
        named = named_by(config, sources)
        weights = [of_source for _, of_source in named]
        self.normalisation = normalisation_of_input(config, data, self.rows, weights)
        self.recordings = recordings_of((data.cache.names[i] for i in self.rows), weights)
        self.network = untrained(config, len(data.label_names), weights)
        self.provenance = self._provenance() | origins(named)
        self.fresh = {
            name: tensor.numpy(force=True).copy()
            for name, tensor in self.network.state_dict().items()
            if not config.plan.is_pretrained(self.network.block_of(name))
        }
        self.network.to(data.device).to(memory_format=torch.channels_last)
        self.learned = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.optimizer = optimiser.make(self.network, self.learned, config)
        self.began: Callable[[], object] = lambda: None  # called after the first step of an epoch
        self.history: dict[str, list[float]] = {name: [] for name in history_names(config)}
        self.logits_last = self.logits_best = np.empty((0, 0), np.float32)

    def _provenance(self) -> dict[str, Any]:
        config = self.config
        return _environment(self.data.device) | {
            "transferlens": __version__,
            "python": platform.python_version(),
            "timm": importlib.metadata.version("timm"),
            "numpy": np.__version__,
            "precision": precision.choose(config.training.precision, self.data.device, **config.computed),
            "features_key": self.data.cache.key,
            "n_train": len(self.rows),
            **self._commonest(),
            "skipped_clips": " ".join(self.data.dataset.skipped) or "none",
            "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **self._smaller_passes(),
            **({"call": call} if (call := os.environ.get(CALL)) else {}),
        }

    def _commonest(self) -> dict[str, float]:
        """Return the accuracy of always naming the commonest class of the training clips, if clips have one label."""
        share = commonest(self.config.scoring, *(self.data.labels[clips] for clips in (self.rows, self.held_out)))
        return {"commonest": share} if np.isfinite(share) else {}

    def _smaller_passes(self) -> dict[str, int]:
        """Return how many clips go through the network at once without gradients, if memory limits them."""
        size = self.config.cost(len(self.data.label_names)).pass_size(self.data.memory)
        return {"pass_size": size} if self.data.device.type == "cpu" and size < PASS_SIZE else {}

    @property
    def pass_size(self) -> int:
        """Number of clips that go through the network at once without gradients."""
        return self.provenance.get("pass_size", PASS_SIZE)

    def _autocast(self) -> contextlib.AbstractContextManager:
        return precision.autocast(self.data.device, self.provenance["precision"])

    def _batches(self, rows: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """Yield the inputs of the first block that may change: normalised features, or outputs of the frozen blocks."""
        if self.start:
            return self.data.outputs(self._prefix_key, self._prefix, rows, batch_size=self.pass_size)
        return map(self._inputs, self.data.batches(rows))

    def _inputs(self, x: torch.Tensor) -> torch.Tensor:
        return normalised(x, self.normalisation).contiguous(memory_format=torch.channels_last)

    def _prefix(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the last frozen block; pooled, if only the head follows."""
        with torch.no_grad(), self._autocast():
            return self.network.before(self._inputs(x), self.start)

    @functools.cached_property
    def _prefix_key(self) -> str:
        """Hash of everything that the outputs of the frozen blocks depend on."""
        pooled = self.start > self.config.plan.truncate_after
        words = (self.config.backbone, self.start, pooled, self.provenance["precision"], self.pass_size)
        digest = hashlib.sha256(repr(words).encode() + self.normalisation.tobytes())
        for name, tensor in self.network.state_dict().items():
            block = self.network.block_of(name)
            if block != "head" and block < self.start:
                digest.update(tensor.numpy(force=True).tobytes())
        return digest.hexdigest()

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return self.network(x, start=self.start).float()

    def epoch(self) -> None:
        """Train one epoch and evaluate on the held-out fold; raise FloatingPointError if training has diverged."""
        done, started = self.epochs_done, time.perf_counter()
        lr = self.config.training.lr_at(done)
        loss = self._train(done)
        self._average(done)
        self.logits_last = self._logits(self.held_out)
        target = torch.from_numpy(self.data.labels[self.held_out])
        logits = torch.from_numpy(self.logits_last)
        if not logits.isfinite().all():
            raise FloatingPointError(f"held-out logits are NaN or infinite after epoch {done + 1}: {DIVERGED}")
        scoring = self.config.scoring
        score = scoring.score(self.logits_last, self.data.labels[self.held_out])
        if score > max(self.history[scoring.held_out], default=-1):
            self.logits_best = self.logits_last
        held_out_loss = scoring.loss(logits, target).item()
        row = [loss, held_out_loss, score, lr, time.perf_counter() - started]
        if len(self.inner):
            row.append(scoring.score(self._logits(self.inner), self.data.labels[self.inner]))
        for name, value in zip(self.history, row, strict=True):
            self.history[name].append(value)

    @property
    def epochs_done(self) -> int:
        """Number of epochs trained so far."""
        return len(self.history["seconds"])

    def _train(self, epoch: int) -> float:
        """Train one epoch and return the mean loss. Order and noise depend on the seed and the epoch alone."""
        n_clips, training = len(self.data.labels), self.config.training
        rng = np.random.default_rng([self.config.seed, epoch])
        clips = self.rows if training.sampling == "clips" else self._balanced(rng)
        order = rng.permutation(np.concatenate([clips + i * n_clips for i in range(training.draws)]))
        parts, batches = self._training_batches(chunks(order, training.batch_size), epoch)
        losses = []
        optimiser.begin(self.network, self.learned, only_head=epoch < training.head_epochs)
        noise = int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0])
        with seeded(noise, self.data.device):
            for i, (rows, x) in enumerate(zip(parts, batches, strict=True)):
                optimiser.set_lr(self.optimizer, training.lr_at(epoch + i / len(parts)))
                target = torch.from_numpy(self.data.labels[rows % n_clips]).to(x.device)
                loss = objective.loss(self._forward, x, target, training, self.config.scoring)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                optimiser.pull(self.optimizer, training.l2_sp)
                losses.append(loss.detach() * len(rows))
                if i == 0:
                    self.began()
        total = torch.stack(losses).cpu().double().sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"the training loss is {total.item()} in epoch {epoch + 1}: {DIVERGED}")
        return total.item() / len(order)

    def _balanced(self, rng: np.random.Generator) -> np.ndarray:
        return balanced(self.rows, self.data.labels, rng, self.config.scoring)

    def _training_batches(self, parts: list[np.ndarray], epoch: int) -> tuple[list[np.ndarray], Iterator[torch.Tensor]]:
        """Return the draws of each mini-batch, in order, and its inputs: clips as they are, augmented, or both."""
        if self.variants is None:
            return parts, self._batches(parts)
        if self.config.training.draws == 1:
            return parts, self._drawn(self.variants, parts, epoch)
        parts = [np.sort(rows) for rows in parts]
        return parts, self._both(self.variants, parts, epoch)

    def _average(self, epoch: int) -> None:
        """Take the weights into their mean in the last epochs; after the last one, they and the statistics are its."""
        plan = self.config.plan
        if not optimiser.average(self.optimizer, self.config.training, epoch):
            return
        moving = [block for i, block in enumerate(self.network.blocks) if not plan.is_frozen(i) or plan.bn != "fixed"]
        order = np.random.default_rng([self.config.seed, epoch, 2]).permutation(self.rows)
        self.network.eval()
        with batchnorm.estimating(torch.nn.ModuleList(moving)):
            forward(self._forward, self._batches(chunks(order, self.pass_size)))

    def _drawn(self, variants: VariantCache, parts: list[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        """Yield batches of augmented clips: of each clip the variant that the seed and the epoch choose."""
        rng, n = np.random.default_rng([self.config.seed, epoch, 1]), variants.per_clip
        rows = [rows * n + rng.integers(n, size=len(rows)) for rows in parts]
        return map(self._inputs, self.data.batches(rows, variants))

    def _both(self, variants: VariantCache, parts: list[np.ndarray], epoch: int) -> Iterator[torch.Tensor]:
        """Yield batches of clips as they are and, from the number of clips on, augmented; numbers are in order.

        Each clip goes through its augmented variants in turn: with as many as epochs, none is used twice.
        """
        n_clips, augmented = len(self.data.labels), variants.augmentation.augmented
        first = np.random.default_rng([self.config.seed, 0, 1]).integers(len(augmented), size=n_clips)
        chosen = augmented[0] + (first + epoch) % len(augmented)
        plain = self.data.batches([rows[rows < n_clips] for rows in parts])
        others = [rows[rows >= n_clips] - n_clips for rows in parts]
        rendered = self.data.batches([rows * variants.per_clip + chosen[rows] for rows in others], variants)
        return (self._inputs(torch.cat(pair)) for pair in zip(plain, rendered, strict=True))

    def _logits(self, rows: np.ndarray) -> np.ndarray:
        self.network.eval()
        logits = over_shifts(self._forward, self.config.training.test_shifts)
        return forward(logits, self._batches(chunks(rows, self.pass_size))).numpy()

    def state(self) -> RunState:
        """Return everything that goes to the run file."""
        complete = self.epochs_done == self.config.training.epochs
        recordings = self.data.dataset.recordings
        return RunState(
            config=self.config,
            provenance=self.provenance,
            label_names=list(self.data.label_names),
            clip_ids=[self.data.dataset.clips[i].id for i in self.held_out],
            labels=self.data.labels[self.held_out],
            normalisation=self.normalisation,
            history=self.history,
            logits_last=self.logits_last,
            logits_best=self.logits_best,
            weights={name: tensor.numpy(force=True) for name, tensor in self.network.state_dict().items()},
            fresh=self.fresh,
            optimizer={} if complete else optimiser.state(self.optimizer, self.learned),
            groups=[recordings[i] for i in self.held_out] if recordings else [],
            recordings=self.recordings,
        )

    def resume(self, state: RunState) -> None:
        """Continue from a checkpoint, bit by bit; raise CheckpointError if it is of another run or incomplete."""
        lengths = {len(state.history.get(name, ())) for name in history_names(self.config)}
        only_head = max(lengths) <= self.config.training.head_epochs
        trained = optimiser.trained(self.network, self.learned, only_head=only_head)
        moments = {key.rsplit("/", 1)[0] for key in state.optimizer}
        if state.config != self.config or len(lengths) != 1 or moments != trained:
            raise CheckpointError("it is the checkpoint of another run, or incomplete")
        precision.check(state.provenance["precision"], self.data.device, **self.config.computed)
        self.provenance, self.normalisation = state.provenance, state.normalisation
        environment = _environment(self.data.device).items()
        if changed := {key: value for key, value in environment if state.provenance.get(key) != value}:
            log.warning("%s was begun in another environment; its bits may differ: %s", self.config.id, changed)
            self.provenance["resumed_with"] = ", ".join(f"{key} {value}" for key, value in changed.items())
        self.history = {name: state.history[name] for name in history_names(self.config)}
        self.fresh = state.fresh
        self.logits_last, self.logits_best = state.logits_last, state.logits_best
        self.network.load_state_dict(to_torch(state.weights))
        optimiser.resume(self.optimizer, self.learned, state.optimizer)


def train(
    config: RunConfig,
    data: Data,
    *,
    folder: Path,
    sources: Sequence[Source] = (Source(),),
    threads: int | None = None,
    progress: Callable[[int, str], object] = lambda epochs, text: None,
    record: Callable[[Mapping[str, Sequence[float]]], object] = lambda history: None,
) -> Run:
    """Train one run to its end, or read it if the store has it.

    Parameters
    ----------
    config : RunConfig
    data : Data
    folder : Path
        The run store.
    sources : sequence of Source
        Those of the plan, as for `Trainer`.
    threads : int, optional
        Number of threads where the configuration names none. Default: torch's, one per core. An interrupted run goes
        on with as many as it began with, since the rounding of sums depends on them.
    progress : callable, optional
        Called with the number of epochs done and a text: at the start, after the first step, after each epoch.
    record : callable, optional
        Called with the history of all epochs done, as often as `progress`.

    Raises
    ------
    DataError, CheckpointError
        If the folds, the weights or an existing run file cannot be used.
    FloatingPointError
        If training diverges.
    """
    path = config.path(folder)
    partial = path.with_suffix(".partial")
    if path.is_file():
        return load_run(path, expected=config)
    if folders := [file for file in (path, partial) if file.is_dir()]:
        raise CheckpointError(
            f"{folders[0]} is a folder, but the run is written to a file of this name: move it to another folder"
        )
    forget_most_memory()
    state = _checkpoint(config, partial)
    with threads_of(config.training.threads or (state.provenance.get("threads") if state else threads)):
        trainer = _resumed(config, data, sources, state)
        if trainer.pass_size < PASS_SIZE:
            words = "%s: %d clips are evaluated at once, not %d, which changes rounding; raise memory to avoid it"
            log.warning(words, config.id, trainer.pass_size, PASS_SIZE)

        def advance() -> None:
            """Report the number of epochs done, with the last held-out score."""
            score = trainer.history[config.scoring.held_out][-1:]
            text = " ".join([config.id, *(f"{100 * value:.1f} %" for value in score)])
            progress(trainer.epochs_done, text)
            record(trainer.history)

        advance()
        trainer.began = advance
        while trainer.epochs_done < config.training.epochs:
            trainer.epoch()
            if trainer.epochs_done == config.training.epochs:
                trainer.provenance["most_memory_bytes"] = most_memory()
            write_state(partial if trainer.epochs_done < config.training.epochs else path, trainer.state())
            advance()
    partial.unlink(missing_ok=True)
    return load_run(path)


def _checkpoint(config: RunConfig, partial: Path) -> RunState | None:
    """Return the last epoch of an interrupted run; None if there is none, or it cannot be read."""
    try:
        return read_state(partial) if partial.is_file() else None
    except MachineError:  # it may be whole
        raise
    except Exception as error:  # a damaged checkpoint costs its epochs, but must not block the run for ever
        log.warning("%s starts over, its checkpoint cannot be used: %s", config.id, error)
        return None


def _resumed(config: RunConfig, data: Data, sources: Sequence[Source], state: RunState | None) -> Trainer:
    """Return a trainer at the last epoch of an interrupted run, or at the start if its checkpoint cannot be used."""
    trainer = Trainer(config, data, sources)
    if state is None:
        return trainer
    try:
        trainer.resume(state)
    except Exception as error:
        log.warning("%s starts over, its checkpoint cannot be used: %s", config.id, error)
        return Trainer(config, data, sources)
    log.info("resuming %s after epoch %d", config.id, trainer.epochs_done)
    return trainer
