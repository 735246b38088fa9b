"""The report: one self-contained page, its explorer in a real browser, and what it says is missing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import importlib
import io
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from transferlens import cli, report
from transferlens.compare import question
from transferlens.compare.captions import FIGURES
from transferlens.explain import explorer
from transferlens.plots import style
from transferlens.store.listing import list_runs, scan
from transferlens.util.fields import build

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def figure(folder, stem="ensemble"):
    fig, axes = style.new_figure(1, 1, width=3, height=2)
    axes[0, 0].plot([0, 1])
    style.save_figure(fig, folder / stem)


def arguments(seeds_store, figures, *more):
    folder = seeds_store[1]
    options = {"--runs": folder / "runs", "--figures": figures, "--cache": folder / "cache", "--device": "cpu"}
    options |= {"--max-steps": 32} | dict(zip(more[::2], more[1::2], strict=True))
    return [str(each) for pair in options.items() for each in pair]


@pytest.fixture(scope="module")
def written(seeds_store, tmp_path_factory):
    """A page with figures, and an explorer with sound of the two arms."""
    folder = tmp_path_factory.mktemp("report")
    figure(folder)
    figure(folder, "my<own>")
    clips = str(seeds_store[1] / "tones" / "clips.csv")
    assert report.main(arguments(seeds_store, folder, "--clips", clips, "--explore", "4")) == 0
    return folder / "report.html"


def data_of(page, name="data"):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)[1])


def test_nothing_is_fetched_from_elsewhere(written):
    text = written.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    banner = "/*! https://github.com/leeoniya/uPlot (v1.6.32) */"
    assert text.count(banner) == 1
    assert "http" not in re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", "", text).replace(banner, "")


def test_the_chart_library_is_the_published_file_with_its_licence(written):
    folder = Path(report.__file__).parent / "templates"
    digest = hashlib.sha256((folder / "uPlot.iife.min.js").read_bytes()).hexdigest()
    assert digest == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    assert "Copyright (c) 2022 Leon Sorokin" in written.read_text()


def test_every_figure_of_a_question_has_a_caption():
    modules = {name: importlib.import_module(f"transferlens.{name}") for name in cli.COMMANDS}
    drawn = {module.__name__ for module in modules.values() if hasattr(module, "draw")}
    results = [kind for kind in question.Result.__subclasses__() if kind.__module__ in drawn]
    by_block = {name for name, module in modules.items() if hasattr(module, "by_block")} - drawn
    assert len(results) > 10 and "probe" in by_block
    assert {result.stem for result in results} | by_block <= set(FIGURES)


def test_runs_tables_and_figures_are_there(written):
    text = written.read_text()
    for words in (
        "test_resnet",
        "from scratch",
        "Accuracy over seeds",
        "Question 4: ensembles",
        "No Question 1",
        "pretrained, imagenet.safetensors",
    ):
        assert words in text
    assert "my&lt;own&gt;" in text
    assert "my<own>" not in text
    images = re.findall(r"<img [^>]*>", text)
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


def test_explorer_shows_both_arms_with_the_stored_predictions(written, seeds_store):
    clips = data_of(written.read_text())
    assert len(clips) == 4
    run = next(run for run in seeds_store[0]["tuned"] if (run.config.fold, run.config.seed) == ("1", 0))
    for clip in clips:
        assert [view["network"] for view in clip["views"]] == [
            "test_resnet, pretrained, seed 0",
            "test_resnet, from scratch, seed 0",
        ]
        logits = run.logits[run.clip_ids.index(clip["clip"])].astype(float)
        label, probability = clip["views"][0]["predictions"][0]
        assert label == run.label_names[logits.argmax()]
        assert probability == pytest.approx(np.exp(logits - logits.max()).max() / np.exp(logits - logits.max()).sum())
        assert clip["views"][0]["right"] == (label == clip["label"])


def test_sounds_are_as_long_as_the_clips_and_used_and_ignored_sum_to_it(written):
    import base64
    import io

    import soundfile

    clip = data_of(written.read_text())[0]
    decode = lambda uri: soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))  # noqa: E731
    (whole, sr), view = decode(clip["sound"]), clip["views"][0]
    used, ignored = (decode(view[name])[0] for name in ("used", "ignored"))
    assert len(whole) / sr == pytest.approx(clip["seconds"], abs=0.01)
    n = min(map(len, (whole, used, ignored)))
    error = whole[:n] - used[:n] - ignored[:n]
    assert np.sqrt(np.mean(error**2)) < 0.3 * np.sqrt(np.mean(whole**2))  # the codec loses some


def test_sound_is_resampled_and_kept():
    import base64
    import io

    import soundfile

    y = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44100 * 40) / 44100)  # longer than the encoder takes at once
    back, sr = soundfile.read(io.BytesIO(base64.b64decode(explorer.sound(y, 44100).partition(",")[2])))
    assert sr == 22050
    assert len(back) == pytest.approx(len(y) / 2, abs=50)
    assert np.abs(np.fft.rfft(back)).argmax() / (len(back) / sr) == pytest.approx(440, abs=1)


def test_budget_leaves_clips_out_and_says_so(seeds_store, tmp_path, written):
    clips = [explorer.Entry(**clip) for clip in data_of(written.read_text())]
    entries = [dataclasses.replace(c, views=[explorer.View(**view) for view in c.views]) for c in clips]
    summaries, problems = scan(seeds_store[1] / "runs")
    page = partial(report.page, summaries, problems, tmp_path, store="runs")
    base = len(page([], budget=25).encode()) + report.SPARE
    budget = (base + 2.5 * entries[0].nbytes) / 1e6
    text = page(entries, budget=budget)
    assert 1 <= len(data_of(text)) < 4
    assert "Clips left out to keep this file below" in text
    assert len(text.encode()) <= 1e6 * budget
    more = [dataclasses.replace(entries[i % 4], clip=f"other-{i}", views=[]) for i in range(20)]
    both = page(entries, mistakes=more, budget=budget)
    kept = [clip["clip"] for clip in data_of(both, "mistakes")]
    assert len(both.encode()) <= 1e6 * budget
    assert kept == [f"other-{i}" for i in range(len(kept))]
    assert 1 <= len(kept) < 20


def test_clips_that_were_asked_for_and_are_others_are_an_error(seeds_store, tmp_path, capsys):
    shutil.copytree(seeds_store[1] / "tones", tmp_path / "other")
    table = tmp_path / "other" / "clips.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert report.main(arguments(seeds_store, tmp_path / "f", "--clips", str(table), "--explore", "2")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was trained on other clips than" in line
    assert not (tmp_path / "f" / "report.html").exists()


def test_files_that_are_no_images_are_named_at_once(seeds_store, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()  # is none of the figures
    (tmp_path / "ensemble.png").write_text("no image")
    (tmp_path / "freeze.png").touch()
    assert report.main(arguments(seeds_store, tmp_path, "--explore", "0")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ensemble.png is not a PNG image" in line
    assert "freeze.png is not a PNG image" in line


def test_what_fits_is_spread_over_all_clips(written):
    clips = [explorer.Entry(**clip) for clip in data_of(written.read_text())]
    same = [dataclasses.replace(clips[0], clip=str(i), views=[]) for i in range(6)]
    assert [c.clip for c in report._fitting(same, 3.5 * same[0].nbytes)] == ["0", "2", "5"]
    assert report._fitting(same, 0) == []


def test_explored_runs_are_of_the_commonest_settings(seeds_store):
    done, _ = scan(seeds_store[1] / "runs")
    one = [s for s in done if (s.config.plan.title, s.config.fold) == ("pretrained", "1")]
    odd = dataclasses.replace(one[0].config, seed=0, training=dataclasses.replace(one[0].config.training, lr=0.5))
    other = next(s for s in one if s.config.seed == 0)
    other = dataclasses.replace(other)
    other.__dict__["config"] = odd
    assert report._commonest([other, *(s for s in one if s.config.seed)]).config.seed == 1


def test_without_audio_figures_or_a_run_the_page_says_so(seeds_store, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(seeds_store[1] / "runs", runs)
    gone = next(run for run in seeds_store[0]["tuned"] if (run.config.fold, run.config.seed) == ("2", 1))
    (runs / gone.path.relative_to(seeds_store[1] / "runs")).unlink()
    argv = arguments(seeds_store, tmp_path / "figures", "--explore", "2")
    argv[1] = str(runs)
    assert report.main(argv) == 0
    text = (tmp_path / "figures" / "report.html").read_text()
    assert "no run of fold 2, seed 1" in text
    assert "this page is silent" in text
    assert "There are no figures in" in text


def test_no_explorer(seeds_store, tmp_path):
    assert report.main(arguments(seeds_store, tmp_path, "--explore", "0")) == 0
    assert "<h2>Explorer</h2>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--explore", "-1"], "explore=-1 must be at least 0"),
        (["--mistakes", "-1"], "mistakes=-1 must be at least 0"),
        (["--budget", "0"], "budget=0.0 must be greater than 0"),
        (["--max-steps", "0"], "max_steps=0 must be at least 32"),
        (["--runs", "nowhere"], "'nowhere' is not a folder"),
        (["--ckpt", "nowhere.h5"], "nowhere.h5 does not exist"),
    ],
)
def test_bad_input_is_one_line(seeds_store, tmp_path, more, message, capsys):
    assert report.main(arguments(seeds_store, tmp_path / "figures", *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "figures").exists()


SCRIPT = """
<script>
window.addEventListener("load", async () => {
  const found = {}, all = (selector) => [...document.querySelectorAll(selector)];
  const choose = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event("change")); };
  const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const shown = () => byId("clips").options.length;
  const playable = (audio) => new Promise((done) => {
    audio.addEventListener("loadedmetadata", () => done(audio.duration));
    audio.addEventListener("error", () => done(0));
    audio.preload = "metadata"; audio.load();
  });
  // The explorer
  found.all = shown();
  choose("by-class", "low"); found.low = shown(); found.count = byId("count").textContent; choose("by-class", "");
  choose("by-outcome", "right"); found.right = shown();
  choose("by-outcome", "wrong"); found.wrong = shown(); choose("by-outcome", "");
  byId("clips").selectedIndex = 2; byId("clips").dispatchEvent(new Event("change"));
  found.name = document.querySelector("#shown h4").textContent;
  all("img").forEach((image) => { image.loading = "eager"; });
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
  found.broken = all("img").filter((image) => !image.naturalWidth).length;
  found.images = document.images.length;
  found.unnamed = all("img").filter((image) => !image.alt).length;
  found.durations = await Promise.all(all("audio").map(playable));
  // A click on a spectrogram seeks; the play head follows
  const box = document.querySelector("#shown .picture"), place = box.getBoundingClientRect();
  const audio = document.querySelector("#shown audio"), clientX = place.left + place.width / 2;
  box.dispatchEvent(new MouseEvent("click", { bubbles: true, clientX, clientY: place.top + 5 }));
  found.time = audio.currentTime;
  found.heads = all("#shown .head").map((head) => parseFloat(head.style.left));
  press(box, "Home");
  found.home = audio.currentTime;
  // The confusion matrix of each arm: every cell, its clips, and those that can be heard
  found.matrices = [...byId("matrix-arm").options].map((option) => {
    choose("matrix-arm", option.value);
    const mistakes = byId("matrix-clips").querySelector("h4").textContent;
    const cells = [...byId("matrix").tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => {
      cell.click();
      const title = byId("matrix-clips").querySelector("h4").textContent;
      return [cell.textContent, title, all("#matrix-clips li").length, all("#matrix-clips button").length];
    }));
    return { mistakes, cells };
  });
  byId("matrix-surest").click();
  document.querySelector("#matrix-clips button").click();
  found.heard = await playable(document.querySelector("#matrix-clips audio"));
  const first = byId("matrix").tBodies[0].rows[0].cells[1];
  first.focus(); press(first, "ArrowRight"); found.focused = document.activeElement.getAttribute("aria-label");
  press(document.activeElement, "Enter");
  found.chosen = document.querySelector("#matrix [aria-selected]").getAttribute("aria-label");
  // Curves and classes
  press(byId("curve-chart"), "ArrowRight"); found.epoch = byId("curve-values").firstChild.textContent;
  found.values = byId("curve-values").childNodes[1].textContent;
  choose("class-score", "precision"); found.lines = byId("class-scores").tBodies[0].rows.length;
  found.precision = [...byId("class-scores").tBodies[0].rows].at(-1).cells[2].textContent;
  document.querySelector("#arm-names input").click(); found.fewer = byId("class-scores").tBodies[0].rows.length;
  // Arm against arm, both ways round
  choose("pair-first", "1"); choose("pair-second", "2");
  const count = (element) => parseInt(element.textContent);
  const flipped = () => [byId("pair-words").textContent, ...all("#pair-flips h4").map(count),
    all("#pair-flips li").length, ...[...byId("pair-rows").tBodies[0].rows[0].cells].slice(6).map(count)];
  found.forth = flipped();
  choose("pair-first", "2"); choose("pair-second", "1"); found.back = flipped();
  found.wide = document.documentElement.scrollWidth > window.innerWidth;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
# Browsers' windows have a least width, but frames do not.
FRAME = """<!doctype html><iframe src="report.html" style="border:0;width:{}px;height:1500px"></iframe>
<script>addEventListener("message", (event) => {{ const pre = document.createElement("pre"); pre.id = "found";
pre.textContent = event.data; document.body.append(pre); }});</script>"""


def test_runs_of_the_clips_named_are_explored(seeds_store):
    folder = seeds_store[1]
    mine = list_runs(folder / "runs")
    other = SimpleNamespace(config=dataclasses.replace(mine[0].config, data_key="0" * 64))
    values = {"clips": folder / "tones" / "clips.csv", "width": 32, "cache": folder / "cache"}
    options = build(report.Options, values)
    assert report._of_clips([other, *mine], options) == mine
    assert report._of_clips([other], options) == [other]
    assert report._of_clips([other, *mine], report.Options()) == [other, *mine]


def in_browser(page, width, tmp_path):
    """What the script finds in a page of this width [px], in which it clicks."""
    (tmp_path / "report.html").write_text(page.replace("</body>", SCRIPT + "</body>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1400,1500", "--enable-logging=stderr", "--dump-dom"]
    for budget in (20_000, 100_000, 500_000):  # virtual time, which runs ahead of the decoders on a busy machine
        argv = [*command, f"--virtual-time-budget={budget}", (tmp_path / "frame.html").as_uri()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        if text := re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL):
            break
    return json.loads(html.unescape(text[1]))


def check_explorer(found, clips):
    right = sum(clip["views"][0]["right"] for clip in clips)
    assert (found["all"], found["right"], found["wrong"]) == (len(clips), right, len(clips) - right)
    assert found["low"] == sum(clip["label"] == "low" for clip in clips)
    assert found["count"] == f"{found['low']} of {len(clips)} clips"
    assert found["name"].startswith(clips[2]["label"])
    assert (found["broken"], found["unnamed"]) == (0, 0)
    assert found["images"] == 2 + 2 * 2
    assert found["durations"] == pytest.approx([clips[2]["seconds"]] * 5, abs=0.05)
    assert found["time"] == pytest.approx(clips[2]["seconds"] / 2, abs=0.02)
    assert found["heads"] == pytest.approx([50, 50], abs=4)
    assert found["home"] == 0


def check_matrices(found, arms, heard):
    """Each cell has the mean number of clips, lists those that some network puts there, and plays those heard."""
    for matrix, arm in zip(found["matrices"], arms["arms"], strict=True):
        labels, chosen = np.array(arm["clips"]["labels"]), np.array(arm["clips"]["chosen"])
        names = np.array([arms["clips"][clip] for clip in arm["clips"]["clips"]])
        wrong = int((np.array(arm["clips"]["together"]) != labels).sum())
        assert matrix["mistakes"] == (f"The surest mistakes, of {wrong}" if wrong else "No clip is classified wrongly")
        total = 0
        for i, row in enumerate(matrix["cells"]):
            for k, (text, title, n_listed, n_buttons) in enumerate(row):
                votes = (chosen == k) & (labels == i)
                in_cell = names[votes.any(0)]
                assert float(text or 0) == pytest.approx(votes.sum() / len(chosen), abs=0.051)
                assert title.startswith(f"{arm['classes'][i]} classified as {arm['classes'][k]}: {len(in_cell)} clip")
                assert (n_listed, n_buttons) == (len(in_cell), len(set(in_cell.tolist()) & heard))
                total += votes.sum() / len(chosen)
        assert total == pytest.approx(len(labels))


def number_after(words, text):
    return float(re.search(rf"{words}([+-]?[\d.]+)", text)[1])


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_all_that_can_be_clicked_works(written, tmp_path, width):
    text = written.read_text()
    found, arms = in_browser(text, width, tmp_path), data_of(text, "arms-data")
    clips, mistakes = data_of(text), data_of(text, "mistakes")
    check_explorer(found, clips)
    check_matrices(found, arms, {clip["clip"] for clip in [*clips, *mistakes]})
    assert found["heard"] == pytest.approx(0.5, abs=0.05)
    assert found["focused"] == found["chosen"]
    assert found["focused"].startswith("high classified as low: ")
    assert found["epoch"] == "epoch 1"
    curve = arms["arms"][0]["curves"]["heldout_accuracy"]
    assert found["values"].startswith(f"{arms['arms'][0]['name']}: ")
    assert number_after(": ", found["values"]) == pytest.approx(100 * curve["mean"][0], abs=0.051)
    assert (found["lines"], found["fewer"]) == (3 * 4, 2 * 4)
    precision = arms["arms"][2]["scores"]["single"][1]["precision"]
    if precision is None:
        assert found["precision"].strip() == "–"
    else:
        assert number_after("", found["precision"]) == pytest.approx(100 * precision, abs=0.051)
    (row,) = (pair["rows"][0] for pair in arms["pairs"] if (pair["first"], pair["second"]) == (1, 2))
    gained, lost = row["gained"], row["lost"]
    assert found["forth"][1:] == [gained, lost, gained + lost, gained, lost]
    assert found["back"][1:] == [lost, gained, gained + lost, lost, gained]
    for words, sign in ((found["forth"][0], 1), (found["back"][0], -1)):
        assert number_after("difference of ", words) == pytest.approx(sign * 100 * row["change"], abs=0.051)
    assert not found["wide"]


def test_a_sound_is_the_same_again_and_can_be_decoded(monkeypatch):
    y = np.sin(np.arange(60_000) / 20).astype(np.float32) / 2
    first, again = explorer.sound(y, 16_000), explorer.sound(y, 16_000)
    assert first == again
    decoded, sr = soundfile.read(io.BytesIO(base64.b64decode(first.partition(",")[2])))
    assert (len(decoded), sr) == (60_000, 16_000)
    np.testing.assert_allclose(decoded, y, atol=0.05)
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "_numbered", bytes)
        assert explorer.sound(y, 16_000) != explorer.sound(y, 16_000)  # what libsndfile writes differs
