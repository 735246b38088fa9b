"""Held-out clips classified again: the logits that training stored."""

from __future__ import annotations

import numpy as np
import pytest

from transferlens.data.catalogue import DataOptions
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
