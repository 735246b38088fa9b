"""Laws of SVCCA, PWCCA, CKA and Procrustes, against the decomposition of the whole matrix, and against chance."""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import pytest

from transferlens.measures.cca import EPS, MEASURES, RESAMPLED
from transferlens.measures.similarity import chance, cka, procrustes, pwcca, svcca
from transferlens.measures.streaming import FEWEST_GROUPS, Moments
from transferlens.util.errors import ParameterError


def rng(seed=0):
    return np.random.default_rng(seed)


def orthonormal(n, p, seed=0):
    return np.linalg.qr(rng(seed).normal(size=(n, p)))[0]


def ill_conditioned(n, p, condition=1e6, seed=0):
    return orthonormal(n, p, seed) * np.logspace(0, -np.log10(condition), p) @ orthonormal(p, p, seed + 1).T


def late(n, p, seed=0):
    """A block of neurons that is silent in the first samples."""
    X = rng(seed).normal(size=(n, p))
    X[: n // 8, p // 3 : 2 * p // 3] = 0
    return X


def constant_column(n, p, seed=0):
    X = rng(seed).normal(size=(n, p))
    X[:, p // 2] = 3.0
    return X


def rank_deficient(n, p, seed=0):
    return rng(seed).normal(size=(n, p // 2)) @ rng(seed + 1).normal(size=(p // 2, p))


def noisy(X, q, amount=0.5, seed=5):
    """Another representation of the same samples, partly alike."""
    Y = X @ rng(seed).normal(size=(X.shape[1], q))
    return Y + amount * Y.std() * rng(seed + 1).normal(size=Y.shape)


def shifted(X):
    return X + 1e4 * X.std()


CASES = {
    "random": (rng(1).normal(size=(2000, 20)), rng(2).normal(size=(2000, 30))),
    "related": (rng(1).normal(size=(2000, 20)), noisy(rng(1).normal(size=(2000, 20)), 30)),
    "ill-conditioned": (ill_conditioned(3000, 20), noisy(ill_conditioned(3000, 20), 15)),
    "both ill-conditioned": (
        ill_conditioned(3000, 20),
        noisy(ill_conditioned(3000, 20), 15, 1e-3) @ ill_conditioned(15, 15, seed=9),
    ),
    "rank-deficient": (rank_deficient(1000, 12), noisy(rank_deficient(1000, 12), 8)),
    "constant column": (constant_column(500, 6), noisy(constant_column(500, 6), 4)),
    "fewer samples than neurons": (rng(1).normal(size=(30, 50)), rng(2).normal(size=(30, 10))),
    "fewer samples than either": (rng(1).normal(size=(20, 50)), rng(2).normal(size=(20, 40))),
    "large mean": (shifted(rng(1).normal(size=(4000, 10))), shifted(noisy(rng(1).normal(size=(4000, 10)), 12))),
    "late neurons": (late(2000, 40), noisy(late(2000, 40), 40)),
    "one neuron": (rng(1).normal(size=(100, 1)), noisy(rng(1).normal(size=(100, 1)), 3)),
    "single precision": (rng(1).normal(size=(900, 9)).astype(np.float32), noisy(rng(1).normal(size=(900, 9)), 9)),
}


# With all variance kept, faint directions are a law of their own.
FUNCTIONS = {
    "svcca": svcca,
    "pwcca": functools.partial(pwcca, variance=0.99),
    "cka": cka,
    "debiased_cka": functools.partial(cka, debiased=True),
    "procrustes": procrustes,
}
LAWS = [(name, v) for name in CASES for v in (1.0, 0.99, 0.9) if v < 1 or "ill-conditioned" not in name]


def basis(X, variance):
    """Leading left singular vectors of the centred matrix, and the singular values and directions with them."""
    X = np.asarray(X, float)
    U, s, V = np.linalg.svd(X - X.mean(0), full_matrices=False)
    rank = (s > max(X.shape) * np.finfo(float).eps * s[0]).sum()
    k = rank if variance == 1 else np.searchsorted(np.cumsum(s[:rank] ** 2) / (s[:rank] ** 2).sum(), variance) + 1
    return U[:, :k], s[:k, None] * V[:k]


def direct(X, Y, variance, measures=MEASURES):
    """All measures, or some, from decompositions of the whole matrices."""
    (U, A), (W, B) = basis(X, variance), basis(Y, variance)
    left, correlations, right = np.linalg.svd(U.T @ W, full_matrices=False)
    weights = [np.abs(left.T @ A).sum(1), np.abs(right @ B).sum(1)]
    by_side = [np.average(correlations, weights=w) for w in weights]
    fewer = np.sign(len(A) - len(B))
    centred = [np.asarray(each, float) - np.asarray(each, float).mean(0) for each in (X, Y)]
    squares = [np.linalg.norm(a.T @ b) for a, b in (centred, centred[:1] * 2, centred[1:] * 2)]
    alignment = squares[0] ** 2 / (squares[1] * squares[2])
    found = {
        "svcca": lambda: correlations.mean(),
        "pwcca": lambda: {-1: by_side[0], 0: np.mean(by_side), 1: by_side[1]}[fewer],
        "cka": lambda: alignment,
        "debiased_cka": lambda: debiased(*centred),
        "procrustes": lambda: 1 - 2 / np.pi * np.arccos(min(1, turned(*centred))),
    }
    return {name: found[name]() for name in measures}


def turned(X, Y):
    """The cosine of the angle of Procrustes."""
    lengths = np.linalg.norm(X) * np.linalg.norm(Y)
    return np.linalg.norm(X.T @ Y, "nuc") / lengths if lengths else 0.0


def debiased(X, Y):
    """Debiased CKA by U-centred kernels (Szekely and Rizzo 2014), another way than the formula of the package."""
    n = len(X)

    def centred(K):
        K = K - np.diag(np.diag(K))
        rows, total = K.sum(1) / (n - 2), K.sum() / ((n - 1) * (n - 2))
        K = K - rows[:, None] - rows + total
        return K - np.diag(np.diag(K))

    K, L = centred(X @ X.T), centred(Y @ Y.T)
    products = (K * L).sum(), (K * K).sum(), (L * L).sum()
    return products[0] / np.sqrt(products[1] * products[2]) if min(products[1:]) > 0 else 0.0


def determined(name):
    """Measures that have one value: where samples are few many correlations are 1, and PWCCA's variates any of them."""
    return [measure for measure in MEASURES if measure != "pwcca" or not name.startswith("fewer samples")]


def streamed(X, Y, size, *, variance=0.99, groups=1):
    moments = Moments(variance=variance, groups=groups)
    for i, start in enumerate(range(0, len(X), size)):
        moments.update(X[start : start + size], Y[start : start + size], group=i % groups)
    return moments


# -------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize(("name", "variance"), LAWS)
def test_equal_to_the_direct_decomposition(name, variance):
    X, Y = CASES[name]
    expected = direct(X, Y, variance)
    found = streamed(X, Y, 64, variance=variance).measure()
    for measure in determined(name):
        assert found[measure].similarity == pytest.approx(expected[measure], abs=1e-8), measure


@pytest.mark.parametrize(("name", "variance"), LAWS)
def test_splitting_into_batches_does_not_matter(name, variance):
    X, Y = CASES[name]
    whole = streamed(X, Y, len(X), variance=variance).measure()
    for size in (7, 100):
        found = streamed(X, Y, size, variance=variance).measure()
        for measure in determined(name):
            assert found[measure].similarity == pytest.approx(whole[measure].similarity, abs=1e-10), (size, measure)
            assert found[measure].dims == whole[measure].dims
            assert found[measure].n_samples == len(X)


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4, 1e5, 1e6])
def test_faint_directions_have_as_many_digits_as_their_squares(condition):
    X = ill_conditioned(3000, 20, condition)
    for Y in (noisy(X, 15), noisy(X, 15, 0.01) @ orthonormal(15, 15)):
        found, expected = streamed(X, Y, 64, variance=1).measure(), direct(X, Y, 1)
        for measure in MEASURES:
            assert found[measure].similarity == pytest.approx(expected[measure], abs=10 * EPS * condition**2), measure


@pytest.mark.parametrize("n", [500, 20_000])
def test_rounding_of_single_precision_is_no_direction(n):
    """Of a linear map to more neurons: a decomposition of the whole matrix keeps all 60."""
    X = rng(1).normal(size=(n, 12))
    wide = (X @ rng(2).normal(size=(12, 60))).astype(np.float32)
    assert len(basis(wide, 1.0)[1]) == 60
    assert streamed(wide, X, 100, variance=1).svcca().dims == (12, 12)
    assert svcca(wide, X, variance=1).similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_symmetric_and_within_0_and_1(name):
    X, Y = CASES[name]
    for measure in determined(name):
        there, back = (FUNCTIONS[measure](*pair) for pair in ((X, Y), (Y, X)))
        assert there.similarity == pytest.approx(back.similarity, abs=1e-10)
        assert there.dims == back.dims[::-1]
        assert (-1 if measure == "debiased_cka" else 0) <= there.similarity <= 1


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", CASES)
def test_a_representation_is_like_itself(name, measure):
    X, _ = CASES[name]
    # The arc cosine of 1 has half of the digits.
    assert FUNCTIONS[measure](X, X).similarity == pytest.approx(1, abs=1e-7 if measure == "procrustes" else 1e-9)


def test_invertible_linear_maps_do_not_matter_when_all_variance_is_kept():
    X, Y = CASES["related"]
    moved = 3 + X @ rng(3).normal(size=(20, 20))
    for measure in (svcca, pwcca):
        assert measure(X, moved, variance=1).similarity == pytest.approx(1, abs=1e-9)
    expected = svcca(X, Y, variance=1)
    found = svcca(moved, Y, variance=1)
    np.testing.assert_allclose(found.correlations, expected.correlations, atol=1e-9)


@pytest.mark.parametrize("measure", [FUNCTIONS[name] for name in MEASURES if name != "pwcca"])
def test_rotations_and_scale_do_not_matter(measure):
    X, Y = CASES["related"]
    turned = 7.5 * X @ orthonormal(20, 20, seed=4)
    assert measure(X, turned).similarity == pytest.approx(1, abs=1e-9)
    assert measure(turned, Y).similarity == pytest.approx(measure(X, Y).similarity, abs=1e-9)


def test_more_noise_is_less_alike():
    X = rng(1).normal(size=(4000, 12))
    for measure in (svcca, pwcca, cka):
        values = [measure(X, X + amount * rng(2).normal(size=X.shape)).similarity for amount in (0, 0.1, 0.5, 2)]
        assert values == sorted(values, reverse=True)


def test_known_correlations():
    """Canonical correlations of unit variables that share a part each."""
    shares = np.array([0.9, 0.5, 0.1])
    X, noise = rng(1).normal(size=(400_000, 3)), rng(2).normal(size=(400_000, 3))
    found = svcca(X @ orthonormal(3, 3), shares * X + np.sqrt(1 - shares**2) * noise, variance=1)
    np.testing.assert_allclose(found.correlations, shares, atol=0.005)
    assert found.similarity == pytest.approx(found.correlations.mean())


def test_weights_of_pwcca_follow_what_variates_explain():
    X, noise = rng(1).normal(size=(20_000, 2)), rng(2).normal(size=(20_000, 2))
    scale = np.array([10.0, 1.0])
    Y = scale * np.column_stack([X[:, 0], noise[:, 1]])  # the loud direction is shared, the faint one is not
    assert svcca(scale * X, Y, variance=1).similarity == pytest.approx(0.5, abs=0.02)
    assert pwcca(scale * X, Y, variance=1).similarity > 0.85


@pytest.mark.parametrize(("p", "q", "n"), [(20, 30, 2000), (100, 100, 1000), (50, 200, 600), (40, 60, 90)])
def test_independent_noise_is_at_its_chance_level(p, q, n):
    found = np.mean(
        [svcca(rng(i).normal(size=(n, p)), rng(99 + i).normal(size=(n, q)), variance=1).similarity for i in range(5)]
    )
    assert found == pytest.approx(chance((p, q), n), abs=0.01)


def test_chance_is_certain_where_samples_are_too_few():
    assert chance((50, 10), 30) == 1.0
    assert chance((10, 10), 10**7) < 0.002
    assert chance((3, 9), 100) == chance((9, 3), 100)


# ------------------------------------------------------------------------------------------------ edges


def test_a_constant_side_has_nothing_to_compare():
    found = Moments()
    found.update(np.full((50, 3), 2.0), rng().normal(size=(50, 4)))
    for name, each in found.measure().items():
        assert each.similarity == 0.0, name
        assert each.dims[0] == (0 if "cca" in name else 3)
    assert svcca(np.zeros((9, 2)), np.zeros((9, 3))).similarity == 0.0


def test_first_batch_of_one_sample():
    X, Y = CASES["related"]
    expected = streamed(X, Y, len(X)).svcca().similarity
    moments = Moments()
    for part in (slice(0, 1), slice(1, None)):
        moments.update(X[part], Y[part])
    assert moments.svcca().similarity == pytest.approx(expected, abs=1e-8)


def test_memory_does_not_grow_with_samples():
    peaks = []
    for batches in (20, 200):
        moments, X = Moments(groups=4), rng().normal(size=(256, 16))
        tracemalloc.start()
        for i in range(batches):
            moments.update(X, X, group=i % 4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# -------------------------------------------------------------------------------------------- bootstrap


def grouped_rows(weights, size=100):
    return np.concatenate([np.arange(size * g, size * (g + 1)) for g, w in enumerate(weights) for _ in range(w)])


@pytest.mark.parametrize("variance", [1, 0.99])
@pytest.mark.parametrize("batch", [5, 100])  # groups that keep their samples, and that keep their products
@pytest.mark.parametrize("name", ["related", "ill-conditioned", "late neurons", "large mean"])
def test_without_a_group_is_as_if_it_had_never_been_seen(name, batch, variance):
    X, Y = (side[:1000] for side in CASES[name])
    moments = Moments(variance=variance, groups=10)
    for start in range(0, 1000, batch):
        moments.update(X[start : start + batch], Y[start : start + batch], group=start * 10 // 1000)
    found = moments.jackknife()
    # At 0.99 directions that hold the last 0.001 of the variance are left out; at 1 faint ones have fewer digits.
    tolerance = 2e-3 if variance < 1 else 10 * EPS * 1e12 if name == "ill-conditioned" else 1e-7
    for g in range(10):
        rest = np.delete(np.arange(1000), slice(100 * g, 100 * (g + 1)))
        expected = direct(X[rest], Y[rest], variance)
        for value, measure in zip(found[g], RESAMPLED, strict=True):
            assert value == pytest.approx(expected[measure], abs=tolerance), (g, measure)


def test_bootstrap_is_as_wide_as_resampling_the_groups_themselves():
    X, Y = rng(1).normal(size=(4000, 8)), noisy(rng(1).normal(size=(4000, 8)), 6, 1.0)
    found = streamed(X, Y, 200, variance=1, groups=20).bootstrap(resamples=4000)
    draw, values = np.random.default_rng(3), []
    for _ in range(400):
        rows = grouped_rows(draw.multinomial(20, np.full(20, 1 / 20)), size=200)
        values.append(direct(X[rows], Y[rows], 1.0, RESAMPLED))
    whole = direct(X, Y, 1.0)
    for name, (low, high) in found.items():
        assert high - low == pytest.approx(
            np.ptp(np.percentile([value[name] for value in values], (2.5, 97.5))), rel=0.2
        ), name
        assert low < whole[name] < high


def clips_like(mixing, n, seed, *, fall):
    """Clips of 20 positions that are alike within a clip: positions of one clip are not independent."""
    draw, p = rng(seed), len(mixing[0])

    def part():
        return np.sqrt(0.7) * np.repeat(draw.normal(size=(n, p)), 20, axis=0) + np.sqrt(0.3) * draw.normal(
            size=(20 * n, p)
        )

    shared = part()
    return (shared * fall) @ mixing[0], ((0.8 * shared + 0.6 * part()) * fall) @ mixing[1]


SLOWER = [(1, 0.0, 20), (0.99, 0.5, 20), (0.9, 1.0, 20), (0.99, 1.0, 50)]


@pytest.mark.parametrize(
    ("variance", "power", "groups"),
    [
        *((1, 0.0, FEWEST_GROUPS), (0.99, 1.0, 20)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOWER),
    ],
)
def test_bootstrap_covers_what_other_clips_as_many_give(variance, power, groups):
    """Nominal 95 %: of 100 intervals at least 88, by a chance of one in a thousand fewer."""
    p, mixing = 24, [orthonormal(24, 24, seed) for seed in (3, 4)]
    fall = np.arange(1, p + 1.0) ** -power
    found = [
        streamed(*clips_like(mixing, 100, seed, fall=fall), 2000 // groups, variance=variance, groups=groups)
        for seed in range(100)
    ]
    intervals = [moments.bootstrap(resamples=400) for moments in found]
    for name in RESAMPLED:
        mean = np.mean([moments.measure()[name].similarity for moments in found])
        assert sum(low <= mean <= high for low, high in (each[name] for each in intervals)) >= 88, name


def test_null_is_that_of_the_other_order_whatever_the_batches():
    X, Y = CASES["related"]
    order, moments = rng().permutation(len(X)), Moments(groups=5)
    for start in range(0, len(X), 70):
        rows = slice(start, start + 70)
        moments.update(X[rows], Y[rows], shuffled=Y[order][rows], group=np.arange(len(X))[rows] % 5)
    for name, expected in direct(X, Y[order], 0.99).items():
        assert moments.null()[name].similarity == pytest.approx(expected, abs=1e-9), name
        assert moments.measure()[name].similarity == pytest.approx(direct(X, Y, 0.99, [name])[name], abs=1e-9)
    with pytest.raises(ParameterError, match="shuffled must have been given"):
        streamed(X, Y, 100).null()


def test_debiased_cka_of_independent_sides_is_about_0_however_few_samples():
    draw = rng(7)
    pairs = [(draw.normal(size=(10, 30)), draw.normal(size=(10, 30))) for _ in range(200)]
    values = [cka(*pair, debiased=True).similarity for pair in pairs]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(cka(*pair).similarity for pair in pairs) > 0.5
    assert np.isnan(cka(np.eye(3), np.eye(3), debiased=True).similarity)


def test_procrustes_of_a_turned_and_stretched_cloud():
    X, angle = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.pi / 3
    assert procrustes(X, X * [1, 0]).similarity == pytest.approx(1 - 2 / np.pi * np.arccos(1 / np.sqrt(2)))
    turned_X = X @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert procrustes(X, 3 * turned_X).similarity == pytest.approx(1, abs=1e-7)


def test_pwcca_keeps_its_own_share():
    X, Y = CASES["ill-conditioned"]
    moments = Moments(variance=0.99, pwcca_variance=0.9, groups=10)
    for start in range(0, 3000, 100):
        moments.update(X[start : start + 100], Y[start : start + 100], group=start // 300)
    expected = direct(X, Y, 0.9, ["pwcca"])["pwcca"]
    assert moments.measure()["pwcca"].similarity == moments.pwcca().similarity == pytest.approx(expected)
    assert moments.measure()["svcca"].similarity == pytest.approx(direct(X, Y, 0.99)["svcca"])
    assert moments.jackknife().shape == (10, 3)


def test_level_and_seed_of_the_bootstrap():
    moments = streamed(*CASES["related"], 100, groups=20)
    narrow, usual, other = (
        moments.bootstrap(level=level, seed=seed) for level, seed in ((0.5, 0), (0.95, 0), (0.95, 1))
    )
    for name in RESAMPLED:
        assert usual[name][0] < narrow[name][0] < narrow[name][1] < usual[name][1]
        assert usual[name] != other[name]
        np.testing.assert_allclose(usual[name], other[name], atol=0.2 * np.ptp(usual[name]))
    assert moments.bootstrap() == usual


def test_measures_follow_new_samples():
    X, Y = CASES["related"]
    moments = Moments(variance=1)
    for stop in (40, 50, 1000, 1003):  # waiting, still waiting, streamed, waiting again
        moments.update(X[moments.n_samples : stop], Y[moments.n_samples : stop])
        assert moments.svcca().similarity == pytest.approx(direct(X[:stop], Y[:stop], 1)["svcca"], abs=1e-9)


def test_samples_that_wait_are_copies():
    X, Y = CASES["related"]
    expected, moments = svcca(X, Y).similarity, Moments()
    for start in range(0, len(X), 10):
        x, y = X[start : start + 10].copy(), Y[start : start + 10].copy()
        moments.update(x, y)
        x[:], y[:] = 0, 0
    assert moments.svcca().similarity == pytest.approx(expected, abs=1e-9)


def test_bootstrap_needs_groups():
    X, Y = CASES["related"]
    for moments in (streamed(X, Y, 100), streamed(X, Y, len(X), groups=12), streamed(X, Y, 100, groups=9)):
        assert np.isnan([*moments.bootstrap().values()]).all()
    assert np.isfinite([*streamed(X, Y, 50, groups=10).bootstrap().values()]).all()


def test_groups_do_not_change_the_result():
    X, Y = CASES["late neurons"]
    kept, apart = streamed(X, Y, 100).measure(), streamed(X, Y, 100, groups=5).measure()
    for name in MEASURES:
        assert kept[name].similarity == apart[name].similarity


@pytest.mark.parametrize("scale", [1e-58, 1e-25, 1e25, 1e58])
def test_scale_does_not_matter_however_large(scale):
    X, Y = CASES["related"]
    for measure in FUNCTIONS.values():
        assert measure(X * scale, Y).similarity == pytest.approx(measure(X, Y).similarity, abs=1e-10)
    found = streamed(X * scale, Y, 20, groups=10).bootstrap()
    for name, bounds in streamed(X, Y, 20, groups=10).bootstrap().items():
        np.testing.assert_allclose(found[name], bounds, atol=1e-8)


@pytest.mark.parametrize("variance", [0.99, 1.0])
@pytest.mark.parametrize("scale", [1e20, 1e58])
def test_samples_may_be_large_after_ordinary_ones(variance, scale):
    X, Y = CASES["related"]
    X = X.copy()
    X[len(X) // 2 :] *= scale
    found = streamed(X, Y, 50, variance=variance).measure()
    whole = streamed(X / scale, Y, len(X), variance=variance).measure()
    for name in MEASURES:
        assert found[name].similarity == pytest.approx(whole[name].similarity, abs=1e-6)


# -------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("options", [{"resamples": 0}, {"resamples": 1.5}, {"level": 95}, {"level": -1}, {"seed": -1}])
def test_bad_options_of_the_bootstrap(options):
    (name,) = options
    with pytest.raises(ParameterError, match=f"{name}="):
        streamed(*CASES["related"], 100, groups=5).bootstrap(**options)


@pytest.mark.parametrize("variance", [1.5, 0, -1, float("nan"), "a", None])
@pytest.mark.parametrize("measure", [svcca, pwcca])
def test_bad_variance(measure, variance):
    with pytest.raises(ParameterError, match="variance=.* must be .*greater than 0 and at most 1"):
        measure(*CASES["related"], variance=variance)


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.zeros((5, 2)), np.zeros((6, 2)), "X has 5 samples and Y has 6: they must be of the same samples"),
        (np.zeros(5), np.zeros((5, 2)), r"X of shape \(5,\) must be \(n_samples, n_neurons\)"),
        (np.zeros((5, 2)), np.zeros((5, 0)), r"Y of shape \(5, 0\)"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "X holds NaN or infinite values"),
        (np.zeros((5, 2)), np.full((5, 2), 1e300), "Y holds .* some beyond 1e[+]60"),
        (np.zeros((5, 2), complex), np.zeros((5, 2)), "X of dtype complex128 must hold real numbers"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "n_samples=1 must be at least 2"),
    ],
)
def test_bad_activations(X, Y, message):
    with pytest.raises(ParameterError, match=message):
        svcca(X, Y)


def test_bad_stream():
    with pytest.raises(ParameterError, match="groups=0 must be at least 1"):
        Moments(groups=0)
    moments = Moments(groups=2)
    X = np.ones((40, 3))
    with pytest.raises(ParameterError, match=r"^shuffled of shape \(2, 3\) must have the shape of Y, \(40, 3\)$"):
        Moments().update(X, X, shuffled=X[:2].tolist())
    with pytest.raises(ParameterError, match=r"^group=array.* must be from 0 to 1$"):
        Moments(groups=2).update(X, X, group=np.arange(40))
    with pytest.raises(ParameterError, match="group=2 must be from 0 to 1"):
        moments.update(np.zeros((3, 2)), np.zeros((3, 2)), group=2)
    with pytest.raises(ParameterError, match=r"group=\[\[0\], \[0, 1\]\] must be from 0 to 1"):
        moments.update(np.zeros((3, 2)), np.zeros((3, 2)), group=[[0], [0, 1]])
    with pytest.raises(ParameterError, match=r"shuffled of shape \(1, 2\) must have the shape of Y, \(3, 2\)"):
        moments.update(np.zeros((3, 2)), np.zeros((3, 2)), shuffled=[[0, 0]])
    with pytest.raises(ParameterError, match="n_samples=0"):
        moments.svcca()
    moments.update(np.eye(3), np.eye(3))
    with pytest.raises(ParameterError, match="Y has 2 neurons, and had 3 before"):
        moments.update(np.eye(3), np.eye(3)[:, :2])


def test_a_share_just_below_1():
    X, Y = CASES["related"]
    found = svcca(X, Y, variance=np.nextafter(1, 0))
    assert found.similarity == pytest.approx(svcca(X, Y, variance=1).similarity, abs=1e-8)


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        svcca(*CASES["related"], 0.99)


@pytest.mark.parametrize(("dims", "n"), [((0, 3), 10), ((3, 3), 1)])
def test_bad_chance(dims, n):
    with pytest.raises(ParameterError, match="must be at least 1, and 2"):
        chance(dims, n)
