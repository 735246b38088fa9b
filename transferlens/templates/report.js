"use strict";

// ---- What the page holds ----
const dataOf = (id) => JSON.parse(document.getElementById(id).textContent);
const clips = dataOf("data"), mistakes = dataOf("mistakes"), overview = dataOf("arms-data");
const byId = (id) => document.getElementById(id);
const inPage = new Map([...mistakes, ...clips].map((entry) => [entry.clip, entry]));  // clips that can be heard or seen
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f5fc7", "#8c564b", "#7f7f7f", "#c2185b"];

const make = (tag, text, cls) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (cls) element.className = cls;
  return element;
};
const row = (cells, tag = "td") => {
  const line = make("tr");
  line.append(...cells.map((cell) => (cell instanceof Node ? cell : make(tag, cell))));
  return line;
};
const swatch = (colour) => { const box = make("span", "", "swatch"); box.style.background = colour; return box; };
const percent = (share, digits = 0) => (share === null ? "–" : (100 * share).toFixed(digits) + " %");
const number = (share) => (share === null ? "–" : (100 * share).toFixed(1));
const span = (low, high) => (low === null || high === null ? "" : number(low) + " to " + number(high));
const counted = (n, noun) => n + " " + noun + (n === 1 ? "" : "s");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const onChange = (ids, listen) => { for (const id of ids) byId(id).addEventListener("change", listen); };

// ---- One clip: sound, pictures, and a play head over them ----
function stopOthers(playing) {
  for (const audio of document.querySelectorAll("audio")) if (audio !== playing) audio.pause();
}
// Moves the play heads in `scope` while the sound plays; `seconds` is the width of the pictures, if it is known.
function follow(audio, scope, seconds) {
  const place = () => {
    const width = seconds || audio.duration;
    if (!(width > 0)) return;
    for (const head of scope.querySelectorAll(".head")) head.style.left = Math.min(100, 100 * audio.currentTime / width) + "%";
    for (const picture of scope.querySelectorAll(".picture")) picture.setAttribute("aria-valuenow", audio.currentTime.toFixed(2));
  };
  const move = () => { place(); if (!audio.paused && !audio.ended) requestAnimationFrame(move); };
  audio.addEventListener("play", () => { stopOthers(audio); scope.playing = audio; move(); });
  audio.place = place;  // for seek, whose event comes later
  for (const event of ["timeupdate", "seeked", "ended"]) audio.addEventListener(event, place);
}
function player(src, name, scope, seconds) {
  const box = make("div"), audio = make("audio");
  audio.controls = true;
  audio.preload = "none";
  audio.src = src;
  audio.setAttribute("aria-label", name);
  follow(audio, scope, seconds);
  box.append(make("span", name, "soft"), audio);
  return box;
}
// Seeks to a share of the picture's width, in the sound that was played last, or that of the clip.
function seek(picture, share) {
  const view = picture.closest(".view"), viewer = picture.closest(".viewer");
  const audio = (view && view.playing) || viewer.playing || viewer.querySelector("audio");
  const go = () => { audio.currentTime = Math.max(0, Math.min(share, 0.999)) * (Number(picture.dataset.seconds) || audio.duration); audio.place(); };
  if (audio.readyState >= 1) { go(); return; }
  audio.addEventListener("loadedmetadata", go, { once: true });
  audio.preload = "auto";
  audio.load();
}
function slider(picture, entry) {
  picture.tabIndex = 0;
  picture.setAttribute("role", "slider");
  picture.setAttribute("aria-label", "position in the clip: arrow keys move it, space plays");
  picture.setAttribute("aria-valuemin", "0");
  picture.setAttribute("aria-valuemax", (entry.seconds || 0).toFixed(2));
  picture.setAttribute("aria-valuenow", "0");
  picture.dataset.seconds = entry.seconds || "";
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    seek(picture, (event.clientX - box.left) / box.width);
  });
  picture.addEventListener("keydown", (event) => {
    const audio = picture.closest(".viewer").querySelector("audio");
    const now = parseFloat(picture.querySelector(".head").style.left || "0") / 100;
    const places = { ArrowLeft: now - 0.02, ArrowRight: now + 0.02, Home: 0, End: 0.999 };
    if (event.key in places) seek(picture, places[event.key]);
    else if (event.key === " ") audio.paused ? audio.play() : audio.pause();
    else return;
    event.preventDefault();
  });
}
function picture(entry, view) {
  const box = make("div", "", "picture"), below = new Image();
  below.src = entry.spectrogram;
  below.alt = "log-mel spectrogram of " + entry.clip;
  box.append(below);
  if (view) {
    const above = new Image();
    above.src = view.attribution;
    above.alt = "attributions of " + view.network;
    box.append(above);
  }
  if (entry.sound) { box.append(make("div", "", "head")); slider(box, entry); }
  return box;
}
function axis(entry) {
  const box = make("div", "", "axis");
  box.append(make("span", "0 s"), make("span", "low to high, mel"), make("span", entry.seconds ? entry.seconds.toFixed(1) + " s" : "end"));
  return box;
}
function network(entry, view) {
  const box = make("article", "", "view"), order = make("ol"), outcome = view.right ? "right" : "wrong";
  for (const [label, p] of view.predictions) order.append(make("li", label + "  " + percent(p), label === entry.label ? "right" : ""));
  box.append(make("h4", view.network), picture(entry, view), axis(entry), make("strong", outcome, outcome), order);
  if (view.used) box.append(player(view.used, "used", box, entry.seconds), player(view.ignored, "ignored", box, entry.seconds));
  return box;
}
// Fills a box with one clip.
function show(box, entry) {
  stopOthers(null);
  box.classList.add("viewer");
  box.playing = null;
  const parts = [make("h4", entry.label + "  (" + entry.clip + ")")];
  if (entry.sound) parts.push(player(entry.sound, "the clip", box, entry.seconds));
  if (entry.views.length) {
    const views = make("div", "", "views");
    views.append(...entry.views.map((view) => network(entry, view)));
    parts.push(views);
  } else parts.push(picture(entry), axis(entry));
  box.replaceChildren(...parts);
}
// Lists clips [{clip, text}], the first `most` of them, with buttons that show those of this page in a box.
const MOST = 200;
function list(found, box) {
  const items = make("ul", "", "clips");
  box.replaceChildren();
  for (const { clip, text } of found.slice(0, MOST)) {
    const item = make("li"), entry = inPage.get(clip);
    if (entry) {
      const button = make("button", clip.split("/").pop());
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        for (const other of items.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
        show(box, entry);
      });
      item.append(button);
    } else item.append(make("span", clip.split("/").pop()));
    item.append(make("span", " " + text, "soft"));
    items.append(item);
  }
  return items;
}
function heardText(found) {
  const n = found.filter(({ clip }) => inPage.has(clip)).length;
  const more = found.length > MOST ? ` The first ${MOST} are listed.` : "";
  return (n === found.length ? "Choose one to hear and see it." : `${n} of ${found.length} can be heard and seen in this page; the others are left out to keep it small.`) + more;
}

// ---- Arms: which are shown, learning curves, scores by class ----
const chosenArms = () => [...byId("arm-names").querySelectorAll("input:checked")].map((box) => overview.arms[Number(box.value)]);
const colourOf = (arm) => COLOURS[overview.arms.filter((other) => other.dataset === arm.dataset).indexOf(arm) % COLOURS.length];
function listArms() {
  const dataset = byId("arm-dataset").value, boxes = [];
  overview.arms.forEach((arm, i) => {
    if (arm.dataset !== dataset) return;
    const label = make("label"), box = make("input");
    Object.assign(box, { type: "checkbox", value: i, checked: boxes.length < 4 });
    box.addEventListener("change", drawArms);
    label.append(box, swatch(colourOf(arm)), make("span", arm.name));
    boxes.push(label);
  });
  byId("arm-names").replaceChildren(make("legend", "arms"), ...boxes);
  drawArms();
}
function drawArms() { drawCurves(); drawClasses(); }

let chart = null;
function drawCurves() {
  const name = byId("curve-value").value, arms = chosenArms(), scale = name === "heldout_accuracy" ? 100 : 1;
  const n = Math.max(1, ...arms.map((arm) => arm.curves[name].mean.length));
  const epochs = Array.from({ length: n }, (_, i) => i + 1);
  const padded = (values) => epochs.map((_, i) => (i < values.length ? scale * values[i] : null));
  const data = [epochs], series = [{}], bands = [];
  for (const arm of arms) {
    const colour = colourOf(arm), curve = arm.curves[name];
    bands.push({ series: [data.length + 1, data.length], fill: colour + "26" });
    data.push(padded(curve.low), padded(curve.high), padded(curve.mean));
    series.push({ points: { show: false } }, { points: { show: false } }, { stroke: colour, width: 2, points: { show: n < 30, size: 6, fill: colour } });
  }
  const axes = [0, 1].map(() => ({ stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } }));
  Object.assign(axes[0], { label: "epoch", labelSize: 22, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] });
  Object.assign(axes[1], { label: byId("curve-value").selectedOptions[0].text, labelSize: 22, size: 48 });
  if (chart) chart.destroy();
  chart = new uPlot({
    width: byId("curve-chart").clientWidth, height: 300, series, bands, axes, legend: { show: false },
    scales: { x: { time: false, range: [Math.min(0.8, 1 - n / 50), n + n / 50] } },
    cursor: { y: false, drag: { x: false, y: false } }, hooks: { setCursor: [(u) => readCurves(arms, name, scale, u.cursor.idx)] },
  }, data, byId("curve-chart"));
  readCurves(arms, name, scale, null);
}
function readCurves(arms, name, scale, at) {
  const text = (value) => (scale * value).toFixed(scale === 100 ? 1 : 3);
  const lines = arms.map((arm) => {
    const { mean, low, high } = arm.curves[name], i = at === null || at === undefined ? mean.length - 1 : at, item = make("li");
    const range = low[i] === high[i] ? "" : ` (${text(low[i])} to ${text(high[i])})`;
    item.append(swatch(colourOf(arm)), make("span", `${arm.name}: ${i < mean.length ? text(mean[i]) + range : "–"}`));
    return item;
  });
  byId("curve-values").replaceChildren(make("li", at === null || at === undefined ? "last epoch" : "epoch " + (at + 1), "soft"), ...lines);
}
function moveCurves(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], n = chart.data[0].length;
  if (!step) return;
  const now = chart.cursor.idx ?? (step > 0 ? -1 : n);
  chart.setCursor({ left: chart.valToPos(chart.data[0][Math.max(0, Math.min(n - 1, now + step))], "x"), top: 10 });
  event.preventDefault();
}

const whoOf = (arm) => (byId("class-who").value in arm.scores ? byId("class-who").value : "single");
function scoreCells(arm, value, low, high) {
  const line = make("div", "", "line"), track = make("div", "", "track"), cell = make("td"), colour = colourOf(arm);
  if (low !== null && high !== null) {
    const bar = make("i");
    Object.assign(bar.style, { left: 100 * low + "%", width: 100 * (high - low) + "%", background: colour });
    track.append(bar);
  }
  if (value !== null) { const dot = make("b"); Object.assign(dot.style, { left: 100 * value + "%", background: colour }); track.append(dot); }
  const name = make("span", arm.name);
  name.title = arm.name;
  line.append(name, track);
  cell.append(line);
  const text = make("td", number(value)), range = make("span", " " + (span(low, high) && `(${span(low, high)})`), "soft");
  text.append(range);
  return [cell, text];
}
function classLines(title, arms, valuesOf) {
  return arms.map((arm, i) => {
    const head = make("th", i ? "" : title);
    head.scope = "row";
    const line = row([head, ...scoreCells(arm, ...valuesOf(arm))]);
    if (i < arms.length - 1) line.className = "same";
    return line;
  });
}
function drawClasses() {
  const arms = chosenArms(), score = byId("class-score").value, body = byId("class-scores").tBodies[0];
  if (!arms.length) { body.replaceChildren(); return; }
  const scores = (arm, label) => arm.scores[whoOf(arm)].find((line) => line.label === label) || {};
  const values = (arm, label) => ["", "_low", "_high"].map((end) => scores(arm, label)[score + end] ?? null);
  const labels = [...arms[0].classes], order = byId("class-order").value;
  if (order !== "name") labels.sort((a, b) => (order === "lowest" ? 1 : -1) * ((values(arms[0], a)[0] ?? 2) - (values(arms[0], b)[0] ?? 2)));
  const whole = classLines("all classes: accuracy", arms, (arm) => ["", "_low", "_high"].map((end) => arm.overall[whoOf(arm)]["accuracy" + end] ?? null));
  const means = classLines("all classes: macro-F1", arms, (arm) => [arm.overall[whoOf(arm)].macro_f1, null, null]);
  const lines = labels.flatMap((label) => classLines(`${label} (${counted(scores(arms[0], label).n_clips ?? 0, "clip")})`, arms, (arm) => values(arm, label)));
  body.replaceChildren(...whole, ...means, ...lines);
}

// ---- The confusion matrix of an arm ----
const matrixArm = () => overview.arms[Number(byId("matrix-arm").value)];
function counts(arm) {
  const n = arm.classes.length, table = Array.from({ length: n }, () => new Array(n).fill(0));
  for (const chosen of arm.clips.chosen) chosen.forEach((k, i) => { table[arm.clips.labels[i]][k] += 1 / arm.clips.chosen.length; });
  return table;
}
const short = (n) => (Number.isInteger(Math.round(100 * n) / 100) ? String(Math.round(n)) : n.toFixed(1));
function drawMatrix() {
  const arm = matrixArm(), table = byId("matrix");
  byId("matrix-left-out").hidden = arm.clips !== null;
  table.replaceChildren();
  byId("matrix-clips").replaceChildren();
  if (!arm.clips) return;
  const n = arm.classes.length, all = counts(arm), head = make("thead"), body = make("tbody");
  table.style.setProperty("--cell", n > 30 ? "1.25rem" : n > 15 ? "1.7rem" : "2.3rem");
  table.style.fontSize = n > 30 ? ".6rem" : "";
  const top = row([make("td"), ...arm.classes.map((label) => { const th = make("th"); th.scope = "col"; th.title = label; th.append(make("span", label)); return th; })]);
  head.append(top);
  all.forEach((line, i) => {
    const sum = line.reduce((a, b) => a + b, 0), th = make("th", arm.classes[i]);
    th.scope = "row";
    th.title = arm.classes[i];
    body.append(row([th, ...line.map((value, k) => matrixCell(arm, i, k, value, sum))]));
  });
  table.append(head, body);
  body.rows[0].cells[1].tabIndex = 0;
  listMistakes();
}
function matrixCell(arm, i, k, value, sum) {
  const cell = make("td", value > 0.004 ? short(value) : ""), share = sum ? value / sum : 0;
  cell.tabIndex = -1;
  cell.setAttribute("aria-label", `${arm.classes[i]} classified as ${arm.classes[k]}: ${short(value)}`);
  if (value) {
    cell.classList.add("some");
    cell.style.background = `color-mix(in srgb, var(${i === k ? "--right" : "--wrong"}) ${Math.round(10 + 90 * share)}%, var(--page))`;
    if (share > 0.5) cell.classList.add(share > 0.8 ? "most" : "half");
  }
  cell.addEventListener("click", () => choose(cell, i, k));
  cell.addEventListener("keydown", (event) => moveInMatrix(event, cell, i, k));
  return cell;
}
function moveInMatrix(event, cell, i, k) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }, rows = byId("matrix").tBodies[0].rows;
  if (event.key === "Enter" || event.key === " ") choose(cell, i, k);
  else if (event.key in steps) {
    const line = rows[i + steps[event.key][0]], next = line && line.cells[k + 1 + steps[event.key][1]];
    if (next && next.tagName === "TD") { cell.tabIndex = -1; next.tabIndex = 0; next.focus(); }
  } else return;
  event.preventDefault();
}
function choose(cell, i, k) {
  for (const other of byId("matrix").querySelectorAll("[aria-selected]")) other.removeAttribute("aria-selected");
  cell.setAttribute("aria-selected", "true");
  const arm = matrixArm(), { chosen, labels, confidence, together } = arm.clips, found = [];
  labels.forEach((label, at) => {
    const votes = label === i ? chosen.filter((one) => one[at] === k).length : 0;
    if (votes) found.push({ at, votes, sure: together[at] === k ? confidence[at] : 0 });
  });
  found.sort((a, b) => b.votes - a.votes || b.sure - a.sure);
  const of = (votes) => (chosen.length > 1 ? `${votes} of ${chosen.length} networks` : "");
  const listed = found.map(({ at, votes, sure }) => ({ clip: overview.clips[arm.clips.clips[at]], text: [of(votes), sure ? "sure to " + percent(sure) : ""].filter(Boolean).join(", ") }));
  fillClips(`${arm.classes[i]} classified as ${arm.classes[k]}: ${counted(found.length, "clip")}`, listed);
}
function listMistakes() {
  for (const other of byId("matrix").querySelectorAll("[aria-selected]")) other.removeAttribute("aria-selected");
  const arm = matrixArm(), { labels, confidence, together } = arm.clips, wrong = [...labels.keys()].filter((at) => together[at] !== labels[at]);
  wrong.sort((a, b) => confidence[b] - confidence[a]);
  const listed = wrong.map((at) => ({ clip: overview.clips[arm.clips.clips[at]], text: `${arm.classes[labels[at]]}, classified as ${arm.classes[together[at]]}, sure to ${percent(confidence[at])}` }));
  fillClips(wrong.length ? `The surest mistakes, of ${wrong.length}` : "No clip is classified wrongly", listed.slice(0, 20));
}
function fillClips(title, listed) {
  const box = make("div"), items = list(listed, box);
  byId("matrix-clips").replaceChildren(make("h4", title), ...(listed.length ? [make("p", heardText(listed), "soft"), items, box] : []));
}

// ---- Two arms against each other ----
function fillSecond() {
  const first = Number(byId("pair-first").value), kept = byId("pair-second").value;
  const others = overview.pairs.filter((pair) => pair.first === first || pair.second === first).map((pair) => (pair.first === first ? pair.second : pair.first));
  byId("pair-second").replaceChildren(...others.map((i) => new Option(overview.arms[i].name, i)));
  if (others.includes(Number(kept))) byId("pair-second").value = kept;
  drawPair();
}
// The pair as its first less its second, whichever way round it was computed.
function pairOf(first, second) {
  const pair = overview.pairs.find((p) => p.first === first && p.second === second);
  if (pair) return pair;
  const other = overview.pairs.find((p) => p.first === second && p.second === first), minus = (x) => (x === null ? null : -x);
  const turned = (r) => ({ ...r, accuracy: r.accuracy_other, accuracy_other: r.accuracy, change: -r.change, change_low: minus(r.change_high), change_high: minus(r.change_low),
    gained: r.lost, lost: r.gained, folds_low: minus(r.folds_high), folds_high: minus(r.folds_low) });
  return other && { settings: other.settings.map(([name, a, b]) => [name, b, a]), rows: other.rows.map(turned) };
}
const points = (x) => (x > 0 ? "+" : "") + number(x);
const pointSpan = (low, high) => (low === null || high === null ? "none" : points(low) + " to " + points(high));
function drawPair() {
  const places = [byId("pair-first"), byId("pair-second")].map((select) => Number(select.value));
  const [one, other] = places.map((i) => overview.arms[i]), pair = byId("pair-second").value ? pairOf(...places) : null;
  byId("pair").hidden = !pair;
  if (!pair) return;
  const whole = pair.rows[0], over = whole.n_recordings ? counted(whole.n_recordings, "recording") : counted(whole.n_clips, "clip");
  byId("pair-words").textContent = `${number(whole.accuracy)} % and ${number(whole.accuracy_other)} %: a difference of ${points(whole.change)} points, ` +
    `95 % interval ${pointSpan(whole.change_low, whole.change_high)} (paired by clip, over ${over})` +
    (whole.folds_low === null ? "." : `, and ${pointSpan(whole.folds_low, whole.folds_high)} for other training too (paired by fold).`);
  const lines = pair.rows.map((r) => row([r.fold ? "fold " + r.fold : "all folds", String(r.n_clips), number(r.accuracy), number(r.accuracy_other), points(r.change), pointSpan(r.change_low, r.change_high), String(r.gained), String(r.lost)]));
  byId("pair-rows").tBodies[0].replaceChildren(...(lines.length === 2 ? lines.slice(0, 1) : lines));
  const differing = pair.settings.map((cells) => row(cells));
  byId("pair-settings").tBodies[0].replaceChildren(...(differing.length ? differing : [row(["no setting differs", "", ""])]));
  drawFlips(one, other);
}
// For each clip of an arm: share of its networks that are right, and the class that their mean chooses.
function outcomes(arm) {
  const { clips, labels, chosen, together } = arm.clips, found = new Map();
  clips.forEach((clip, at) => found.set(clip, { right: chosen.filter((one) => one[at] === labels[at]).length / chosen.length, label: labels[at], predicted: together[at] }));
  return found;
}
function flips(one, other) {
  const first = outcomes(one), second = outcomes(other), found = [];
  for (const [clip, a] of first) {
    const b = second.get(clip);
    if (b && Math.abs(a.right - b.right) > 1e-9) found.push({ clip: overview.clips[clip], gain: a.right - b.right, a, b });
  }
  return found.sort((x, y) => Math.abs(y.gain) - Math.abs(x.gain));
}
function drawFlips(one, other) {
  const box = byId("pair-flips");
  if (!one.clips || !other.clips) { box.replaceChildren(make("p", "The clips of these arms were left out to keep this file small.", "soft")); return; }
  const found = flips(one, other), shown = make("div"), parts = [];
  const share = (arm, { right }) => (arm.n_networks > 1 ? ` (${Math.round(right * arm.n_networks)} of ${arm.n_networks} right)` : "");
  const words = ({ a, b }) => `${one.classes[a.label]}: ${one.classes[a.predicted]}${share(one, a)} / ${other.classes[b.predicted]}${share(other, b)}`;
  for (const [sign, name] of [[1, one.name], [-1, other.name]]) {
    const side = found.filter((flip) => sign * flip.gain > 0);
    parts.push(make("h4", `${counted(side.length, "clip")} that ${name} has right more often`));
    if (side.length) { const listed = side.map((flip) => ({ clip: flip.clip, text: words(flip) })); parts.push(make("p", heardText(listed), "soft"), list(listed, shown)); }
  }
  box.replaceChildren(make("p", "Each clip with its class, and what the networks of the first and of the second, averaged, classify it as.", "soft"), ...parts, shown);
}

// ---- The explorer ----
function matching() {
  const label = byId("by-class").value, outcome = byId("by-outcome").value, which = Number(byId("by-network").value);
  return clips.filter((c) => (!label || c.label === label) && (!outcome || c.views[which].right === (outcome === "right")));
}
function listExplorer() {
  const found = matching(), which = Number(byId("by-network").value);
  byId("clips").replaceChildren(...found.map((c) => new Option((c.views[which].right ? "✓ " : "✗ ") + c.label + "  " + c.clip.split("/").pop(), clips.indexOf(c))));
  byId("count").textContent = found.length + " of " + clips.length + " clips";
  if (found.length) byId("clips").selectedIndex = 0;
  showExplored();
}
function showExplored() {
  const chosen = byId("clips").selectedIndex >= 0;
  byId("shown").hidden = !chosen;
  if (chosen) show(byId("shown"), clips[Number(byId("clips").value)]);
}

// ---- Start ----
if (overview.arms.length) {
  const datasets = [...new Set(overview.arms.map((arm) => arm.dataset))], options = () => overview.arms.map((arm, i) => new Option(arm.name, i));
  byId("arm-dataset").append(...datasets.map((name) => new Option(name, name)));
  byId("arm-dataset").parentElement.hidden = datasets.length === 1;
  byId("matrix-arm").append(...options());
  onChange(["arm-dataset"], listArms);
  onChange(["curve-value"], drawCurves);
  onChange(["class-score", "class-who", "class-order"], drawClasses);
  onChange(["matrix-arm"], drawMatrix);
  byId("matrix-surest").addEventListener("click", listMistakes);
  byId("curve-chart").addEventListener("keydown", moveCurves);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurves);
  addEventListener("resize", () => chart.setSize({ width: byId("curve-chart").clientWidth, height: 300 }));
  listArms();
  drawMatrix();
}
if (overview.pairs.length) {
  const paired = new Set(overview.pairs.flatMap((pair) => [pair.first, pair.second]));
  byId("pair-first").append(...[...paired].sort((a, b) => a - b).map((i) => new Option(overview.arms[i].name, i)));
  onChange(["pair-first"], fillSecond);
  onChange(["pair-second"], drawPair);
  fillSecond();
}
if (clips.length) {
  for (const label of [...new Set(clips.map((c) => c.label))].sort()) byId("by-class").append(new Option(label, label));
  clips[0].views.forEach((view, i) => byId("by-network").append(new Option(view.network, i)));
  onChange(["by-class", "by-network", "by-outcome"], listExplorer);
  onChange(["clips"], showExplored);
  listExplorer();
}
