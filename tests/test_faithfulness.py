"""Scores of attributions: laws and known answers of the measures themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from transferlens.measures import faithfulness


class Cells(torch.nn.Module):
    """Logits: the sum over chosen cells, and 0."""

    def __init__(self, mask):
        super().__init__()
        self.mask = torch.as_tensor(mask, dtype=torch.float32)

    def forward(self, x):
        total = (x * self.mask).sum((1, 2, 3))
        return torch.stack([total, torch.zeros_like(total)], 1)


def block(shape=(8, 30), columns=slice(3, 7)):
    mask = np.zeros(shape, bool)
    mask[2:5, columns] = True
    return mask


def test_average_precision_is_scikit_learn_s_and_one_for_the_mask_itself():
    rng = np.random.default_rng(0)
    mask, values = block(), rng.normal(size=(8, 30))
    assert faithfulness.average_precision(values, mask) == average_precision_score(mask.ravel(), values.ravel())
    assert faithfulness.average_precision(mask + 0.01 * values, mask) == 1
    assert faithfulness.average_precision(np.zeros(mask.shape), mask) == pytest.approx(mask.mean())
    assert np.isnan(faithfulness.average_precision(values, np.zeros_like(mask)))


def test_known_answer_of_a_clip_without_a_cell_in_its_mask_is_nan():
    mask = np.zeros((4, 10), bool)
    found = faithfulness.known_answer(np.ones(mask.shape), mask, np.ones(mask.shape))
    assert found
    assert all(np.isnan(value) for value in found.values())


def test_insertion_falls_by_a_shift_in_time_and_deletion_rises():
    mask = block()
    x = torch.ones(1, *mask.shape)
    fills = {"zeros": torch.zeros_like(x), "half": torch.full_like(x, 0.5)}
    found = faithfulness.areas(Cells(mask), x, fills=fills, target=0, order=mask.astype(float))
    assert list(found) == [
        f"{way}_{fill}{end}" for fill in fills for way in ("insertion", "deletion") for end in ("", "_shifted")
    ]
    for fill in fills:
        assert found[f"insertion_{fill}"] > found[f"insertion_{fill}_shifted"]
        assert found[f"deletion_{fill}"] < found[f"deletion_{fill}_shifted"]


def test_an_attribution_that_is_the_same_at_all_times_is_its_own_control():
    mask, order = block(), np.arange(8.0)[:, None] * np.ones(30)
    steady = Cells(np.ones(mask.shape))
    x = torch.ones(1, *mask.shape)
    found = faithfulness.areas(steady, x, fills={"zeros": torch.zeros_like(x)}, target=0, order=order)
    assert found["insertion_zeros"] == pytest.approx(found["insertion_zeros_shifted"], abs=1e-6)


def test_medians_are_the_clip_without_its_event():
    S = np.random.default_rng(0).normal(size=(2, 8, 30)).round(3)
    quiet = faithfulness.medians(S)
    S[:, 2:5, 3:7] += 100
    assert quiet.shape == S.shape
    assert np.ptp(quiet, axis=-1).max() == 0
    assert np.abs(faithfulness.medians(S) - quiet).max() < 1


def test_patches_repeat_with_their_seed_and_are_even_inside():
    values = faithfulness.patches((40, 50), seed=1)
    assert values.shape == (40, 50)
    assert np.ptp(values[:16, :16]) == np.ptp(values[32:, 48:]) == 0
    assert len(np.unique(values)) == 3 * 4
    np.testing.assert_array_equal(values, faithfulness.patches((40, 50), seed=1))
    assert (values != faithfulness.patches((40, 50), seed=2)).any()


def test_sensitivity_of_the_input_itself_is_the_noise_and_that_of_a_constant_is_zero():
    x = torch.randn(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = faithfulness.sensitivity(lambda inputs: inputs, x)
    # The norm of uniform noise up to 0.02 is 0.02 / sqrt(3) of that of the input.
    np.testing.assert_allclose(found, 0.02 / np.sqrt(3), rtol=0.15)
    np.testing.assert_array_equal(found, faithfulness.sensitivity(lambda inputs: inputs, x))
    np.testing.assert_array_equal(faithfulness.sensitivity(torch.ones_like, x), 0)


def test_agreement_is_the_mean_rank_correlation():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 5, 7))
    found = faithfulness.agreement({"a": a, "exp": np.exp(a), "minus": -a, "other": rng.normal(size=a.shape)})
    assert found["a", "exp"] == pytest.approx(1)
    assert found["a", "minus"] == pytest.approx(-1)
    assert found["a", "other"] == pytest.approx(found["other", "a"])
    assert abs(found["a", "other"]) < 0.5


def test_sdr_knows_no_scale_and_falls_with_noise():
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=10_000), rng.normal(size=10_000)
    for db in (0, 10, 30):
        mixture = signal + 10 ** (-db / 20) * noise
        assert faithfulness.sdr(mixture, signal) == pytest.approx(db, abs=0.3)
        assert faithfulness.sdr(7 * mixture, 3 * signal) == pytest.approx(faithfulness.sdr(mixture, signal))
    assert faithfulness.sdr(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == -np.inf
    assert np.isnan(faithfulness.sdr(np.zeros(4), np.ones(4)))
