"""Held-out clips classified again: the logits that training stored."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.data.catalogue import DataOptions
from transferlens.models import build
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import classify, heldout_features
from transferlens.util.errors import DataError

# The rounding of a few sums in each precision.
ROUNDING = {"bf16": 2**-6, "fp32": 1e-5}


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("frozen_through", [None, 3])
def test_logits_are_the_stored_ones(study, tmp_path, precision, frozen_through):
    """Bit by bit; but outputs of frozen blocks were computed in batches of other sizes."""
    (run,) = study(folds=(1,), width=64, precision=precision).runs(TransferPlan(frozen_through=frozen_through))
    again = classify(run, run.model(), heldout_features(run, DataOptions(), tmp_path / "cache"))
    assert run.provenance["precision"] == precision
    if frozen_through is None:
        np.testing.assert_array_equal(again, run.logits)
        assert (again.argmax(1) == run.labels).mean() == run.accuracy_last
    np.testing.assert_allclose(again, run.logits, rtol=0, atol=ROUNDING[precision] * np.abs(run.logits).max())


def test_as_many_clips_at_once_as_in_training(study, tmp_path, monkeypatch, caplog):
    """Where the container of training was small, here or not; if only this one is small, that is said."""

    def sizes(run):
        network, batches = run.model(), []
        network.blocks[0].register_forward_hook(lambda module, args, output: batches.append(len(output)))
        again = classify(run, network, heldout_features(run, DataOptions(), tmp_path / "cache"))
        np.testing.assert_allclose(again, run.logits, rtol=1e-5, atol=1e-5)
        return batches

    large, small = (study(folds=(1,), precision="fp32", epochs=1, seeds=seed) for seed in (0, 1))
    monkeypatch.setattr(build, "ALWAYS_ALLOWED", 0)
    (large,) = large.runs(TransferPlan())
    monkeypatch.setattr(build, "memory_limit", lambda: 0)
    (small,) = small.runs(TransferPlan())
    caplog.clear()
    assert sizes(small) == [2, 2, 2, 2]
    assert not caplog.text
    assert sizes(large) == [2, 2, 2, 2]
    assert f"{large.config.id}: memory suffices to evaluate 2 clips at once, not 64 as in training" in caplog.text
    monkeypatch.setattr(build, "memory_limit", lambda: 2**40)
    assert (sizes(small), sizes(large)) == ([2, 2, 2, 2], [8])


def test_a_damaged_cache_is_named_or_computed_again_where_the_clips_are(study, clips, tmp_path, caplog):
    made = study(folds=(1,))
    (run,) = made.runs(TransferPlan())
    path, folder = made.cache.path, made.cache.path.parent
    features = heldout_features(run, DataOptions(), folder)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"\.h5 is not a readable feature cache .*run the same command again with"):
        heldout_features(run, DataOptions(), folder)
    assert path.read_bytes() == content
    np.testing.assert_array_equal(heldout_features(run, DataOptions(clips=clips), folder), features)
    assert "is moved to" in caplog.text
    assert path.with_name(f"{path.name}.damaged").read_bytes() == content
    np.testing.assert_array_equal(heldout_features(run, DataOptions(), folder), features)
