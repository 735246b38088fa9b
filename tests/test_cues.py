"""Properties that tell a class are named, with how well they do; those that do by chance, or hardly, are not."""

import numpy as np
import pytest
import scipy.stats

from transferlens.data.cues import Property, accuracies, cues, fisher

DOG_CAT = np.repeat([0, 1], 20)
FOLDS = np.tile([1, 2, 3, 4], 10)


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 1])
def test_accuracy_is_that_of_what_the_property_can_tell(share):
    """A value that only a share of a class has tells this share, whatever the sizes of the classes."""
    for n_other in (20, 200):
        classes, folds = np.repeat([0, 1], [20, n_other]), np.tile([1, 2, 3, 4], 5 + n_other // 4)
        bins = ((classes == 0) & (np.arange(len(classes)) < 20 * share)).astype(int)
        np.testing.assert_allclose(accuracies(bins, classes, folds), 0.5 + share / 2)


def test_one_class_of_many_is_told_as_well_as_one_of_two():
    classes = np.repeat(np.arange(50), 20)
    folds = np.tile([1, 2, 3, 4], 250)
    accuracy = accuracies((classes == 7).astype(int), classes, folds)
    assert accuracy.argmax() == 7
    assert accuracy[7] == 1
    assert np.delete(accuracy, 7).max() < 0.52


def test_a_rule_is_tried_on_folds_that_it_is_not_made_from():
    """What is peculiar to the clips of one fold tells nothing in another."""
    bins = FOLDS - 1 + 4 * DOG_CAT
    assert accuracies(bins, DOG_CAT, np.ones(40)).tolist() == [0.5, 0.5]
    assert accuracies(bins, DOG_CAT, FOLDS).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("table", [[[6, 2], [1, 4]], [[8, 2, 1], [1, 5, 3]], [[5, 5], [5, 5]]])
def test_fisher_agrees_with_the_exact_test(table):
    exact = scipy.stats.fisher_exact(table).pvalue  # of more than four cells: of 9 999 random tables
    assert fisher(np.array(table)) == pytest.approx(exact, abs=0 if np.size(table) == 4 else 0.03)


def test_fisher_of_a_table_whose_probability_is_0_in_floats():
    independent = np.full((2, 200), 100)
    related = np.where(np.arange(200) % 2 == np.arange(2)[:, None], 150, 50)
    assert fisher(independent) > 0.9
    assert fisher(related) == 1 / 1000


def messages(values, *, classes=DOG_CAT, folds=FOLDS, least=0.6):
    labels = np.array(["dog", "cat", "bird"])[classes]
    candidate = Property("value", " Hz", np.asarray(values), least)
    return [message for *_, message in cues([candidate], labels, folds)]


def test_messages_name_class_accuracy_and_values():
    (message,) = messages(np.where(DOG_CAT == 0, "16000", "8000"))
    assert message == (
        "value alone distinguishes cat from all others with 100 % accuracy (chance: 50 %): "
        "8000 Hz in 100 % of its clips and 0 % of the others"
    )
    (message,) = messages(np.where(DOG_CAT == 0, 4.0, 2.0) + np.arange(40) / 1000)
    assert "with 100 % accuracy (chance: 50 %): median 2.029 Hz, of the others 4.01 Hz" in message
    (message,) = messages(np.tile([5.0, 7.0, 9.0], 20), classes=np.tile([0, 1, 2], 20), folds=np.repeat([1, 2], 30))
    assert message.endswith("it also distinguishes cat, dog")


def test_what_hardly_tells_or_tells_by_chance_is_no_cue():
    rng = np.random.default_rng(0)
    classes, folds = np.repeat([0, 1], 5000), np.tile([1, 2], 5000)
    values = rng.normal(size=10_000) + 0.1 * classes
    assert scipy.stats.kruskal(values[:5000], values[5000:]).pvalue < 1e-5
    assert messages(values, classes=classes, folds=folds) == []
    few = np.repeat([0, 1], 4), np.tile([1, 2], 4)
    chance = [messages(np.random.default_rng(seed).normal(size=8), classes=few[0], folds=few[1]) for seed in range(200)]
    assert sum(map(len, chance)) <= 2
    assert messages(np.full(40, "8000")) == []
    assert messages(np.where(DOG_CAT == 0, "a", "b"), classes=np.zeros(40, int)) == []
