"""The report: one self-contained page, its explorer in a real browser, and what it says is missing."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from transferlens import report
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


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_nothing_is_fetched_from_elsewhere(written):
    text = written.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", "", text).replace("http-equiv", "")


def test_runs_tables_and_figures_are_there(written):
    text = written.read_text()
    for words in (
        "test_resnet",
        "from scratch",
        "91.16 ± 0.36",
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
    text = report.page(summaries, problems, tmp_path, entries, store="runs", budget=0.1 + 2.5 * entries[0].nbytes / 1e6)
    assert 1 <= len(data_of(text)) < 4
    assert "Clips left out to keep this file below" in text


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
  const byId = (id) => document.getElementById(id), found = {};
  const choose = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event("change")); };
  const shown = () => byId("clips").options.length;
  found.all = shown();
  choose("by-class", "low"); found.low = shown(); found.count = byId("count").textContent; choose("by-class", "");
  choose("by-outcome", "right"); found.right = shown();
  choose("by-outcome", "wrong"); found.wrong = shown(); choose("by-outcome", "");
  byId("clips").selectedIndex = 2; byId("clips").dispatchEvent(new Event("change"));
  found.name = byId("name").textContent;
  document.querySelectorAll("img").forEach((image) => { image.loading = "eager"; });
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
  found.broken = [...document.images].filter((image) => !image.naturalWidth).length;
  found.images = document.images.length;
  found.unnamed = [...document.images].filter((image) => !image.alt).length;
  const playable = (audio) => new Promise((done) => {
    audio.addEventListener("loadedmetadata", () => done(audio.duration));
    audio.addEventListener("error", () => done(0));
    audio.preload = "metadata"; audio.load();
  });
  found.durations = await Promise.all([...document.querySelectorAll("audio")].map(playable));
  found.wide = document.documentElement.scrollWidth > window.innerWidth;
  const result = document.createElement("pre");
  result.id = "found"; result.textContent = JSON.stringify(found); document.body.append(result);
});
</script>
"""


def test_runs_of_the_clips_named_are_explored(seeds_store):
    folder = seeds_store[1]
    mine = list_runs(folder / "runs")
    other = SimpleNamespace(config=dataclasses.replace(mine[0].config, data_key="0" * 64))
    values = {"clips": folder / "tones" / "clips.csv", "width": 32, "cache": folder / "cache"}
    options = build(report.Options, values)
    assert report._of_clips([other, *mine], options) == mine
    assert report._of_clips([other], options) == [other]
    assert report._of_clips([other, *mine], report.Options()) == [other, *mine]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")
@pytest.mark.parametrize("size", ["1200,1500", "500,1500"])
def test_in_a_browser_the_explorer_filters_and_plays(written, tmp_path, size):
    page = tmp_path / "report.html"
    page.write_text(written.read_text().replace("</body>", SCRIPT + "</body>"))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={size}", "--enable-logging=stderr", "--dump-dom"]
    for budget in (20_000, 100_000, 500_000):  # virtual time, which runs ahead of the decoders on a busy machine
        argv = [*command, f"--virtual-time-budget={budget}", page.as_uri()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        if text := re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL):
            break
    found = json.loads(html.unescape(text[1]))
    clips = data_of(written.read_text())
    right = sum(clip["views"][0]["right"] for clip in clips)
    assert (found["all"], found["right"], found["wrong"]) == (len(clips), right, len(clips) - right)
    assert found["low"] == sum(clip["label"] == "low" for clip in clips)
    assert found["count"] == f"{found['low']} of {len(clips)} clips"
    assert found["name"].startswith(clips[2]["label"])
    assert (found["broken"], found["unnamed"]) == (0, 0)
    assert found["images"] == 2 + 2 * 2
    assert found["durations"] == pytest.approx([clips[2]["seconds"]] * 5, abs=0.05)
    assert not found["wide"]
