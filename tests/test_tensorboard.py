"""The history of runs in TensorBoard: all epochs of a run, each once, also after an interruption."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import transferlens as tl
from transferlens.store.locks import lock
from transferlens.training import schedule, tensorboard
from transferlens.util.errors import ParameterError


def curves(folder):
    """Steps and values of each curve, from all files of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=False)
    events.Reload()
    found = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    return {name: ([event.step for event in each], [event.value for event in each]) for name, each in found.items()}


def check(run, folder):
    found = curves(folder)
    assert set(found) == {tensorboard.CURVES[name] for name in run.history}
    for name, values in run.history.items():
        steps, written = found[tensorboard.CURVES[name]]
        assert steps == [*range(1, len(values) + 1)]
        np.testing.assert_allclose(written, values, rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_epoch_is_written_once(study, workers, tmp_path):
    made = study(folds=("1", "2"), log="tensorboard", workers=workers)
    for run in made.runs(tl.TransferPlan()):
        check(run, tmp_path / "runs" / "tensorboard" / run.config.dataset / run.config.id)


def test_a_run_that_goes_on_writes_no_epoch_twice(study, tmp_path):
    made = study(folds="1", epochs=3, log="tensorboard")
    (point,) = made.points(tl.TransferPlan())

    def stop(epochs, text):
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule.attempt(made, point, progress=stop)
    folder = tensorboard.folder_of(point, tmp_path / "runs")
    assert curves(folder)["learning rate"][0] == [1]  # it was stopped before the second was written
    (run,) = made.runs(tl.TransferPlan())
    check(run, folder)
    with lock(point.path(tmp_path / "runs")) as ours:
        assert ours


def test_nothing_is_written_unless_asked(study, tmp_path):
    study(folds="1", epochs=1).runs(tl.TransferPlan())
    assert not (tmp_path / "runs" / "tensorboard").exists()
    assert len(tl.list_runs(tmp_path / "runs")) == 1


def test_without_the_package_it_is_refused_at_once(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ParameterError, match=r"needs the package tensorboard: pip install 'transferlens\[tensorboard\]'"
    ):
        study(log="tensorboard")
    with pytest.raises(ParameterError, match="log='wandb' must be"):
        study(log="wandb")
