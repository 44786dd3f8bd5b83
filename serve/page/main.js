// The page: what is read, what is shown of it, and who listens.
import { Client, Refusal } from "./api.js";
import { showDetail } from "./detail.js";
import { askToken, fillHelp, told } from "./dialogs.js";
import { Examples } from "./examples.js";
import { Film, fromBase64, sniff } from "./film.js";
import { listen } from "./gestures.js";
import { language, preferred, say, speak } from "./i18n.js";
import { actionOf, taken } from "./keys.js";
import { FindingList } from "./list.js";
import { colouredMap } from "./maps.js";
import { Stage } from "./stage.js";
import { ThumbStrip } from "./thumbs.js";
import { knownBoxes } from "./truth.js";
import { arrange, headline, records, standfirst } from "./words.js";

const at = (id) => document.getElementById(id);
const client = new Client(askToken);
const stage = new Stage(at("view"), at("film-layer"), at("finding-layer"), showReadout);
const list = new FindingList(at("findings"), { onHover: hover, onPick: (name) => choose(name === now.chosen ? null : name) });
const strip = new ThumbStrip(at("films"), showFilm);
const examples = new Examples(client, at("cards"), at("examples-button"), (example) => read(async () => [await examples.blobOf(example)], example));

const EMPTY = { answer: null, films: [], index: 0, list: [], chosen: null, hovered: null, peek: false, maps: new Map(), truth: null, name: "", status: "idle", waitS: 0, alert: null, tookMs: 0 };
const now = { ...EMPTY, turn: 0, abort: null, again: null, layers: { map: true, boxes: true, truth: false }, opacity: 0.5, drag: "move", preset: "full", bundle: null };

// Reading ------------------------------------------------------------------------------------------------------------

/** Reads one study: `bring` gives its files, now or after fetching an example. */
async function read(bring, example = null) {
  performance.mark("weakray:drop");
  const turn = begin(example ? example.title : "");
  try {
    const blobs = await bring();
    if (turn !== now.turn) return;
    if (!example) now.name = blobs.map((blob) => blob.name).join(", ");
    at("film-name").textContent = filmLine();
    const kinds = await Promise.all(blobs.map(sniff));
    const files = blobs.map((blob, i) => blob.slice(0, blob.size, kinds[i].type));
    const ask = (film) => client.predict(files, { film, signal: now.abort.signal, onWait: (seconds) => turn === now.turn && waiting(seconds) });
    const asked = ask(kinds.some((kind) => !kind.local));
    asked.catch(() => null); // awaited below; until then a refusal is not unhandled
    if (example?.truth) client.json(`v1/examples/${encodeURIComponent(example.id)}/truth`).then((truth) => turn === now.turn && learnTruth(truth.boxes), () => null);
    const local = await Promise.all(files.map((file, i) => (kinds[i].local ? Film.from(file).catch(() => null) : null)));
    if (turn !== now.turn) return;
    if (local[0]) stage.show(local[0]);
    let answer = await asked;
    if (!whole(answer, local)) answer = await ask(true);
    const films = await filmsOf(answer, local);
    if (turn === now.turn) answered(answer, films);
  } catch (error) {
    if (turn === now.turn) fail(error, () => read(bring, example));
  }
}

function begin(name) {
  now.abort?.abort();
  Object.assign(now, EMPTY, { maps: new Map(), turn: now.turn + 1, abort: new AbortController(), name, status: "reading", preset: "full" });
  stage.show(null);
  strip.render([], 0);
  at("start").hidden = true;
  renderAll();
  return now.turn;
}

function waiting(seconds) {
  now.status = "waiting";
  now.waitS = seconds;
  renderPanel();
}

/** Whether each image of the answer has a picture: the browser's own or the server's. */
const whole = (answer, local) => answer.images.every((image, i) => image.film || (answer.images.length === local.length && local[i]));

const filmsOf = (answer, local) =>
  Promise.all(answer.images.map((image, i) => (answer.images.length === local.length && local[i]) || Film.from(fromBase64(image.film, "image/png"))));

function answered(answer, films) {
  const took = performance.now() - performance.getEntriesByName("weakray:drop").at(-1).startTime;
  const bundle = { version: answer.bundle.weakray, sha256: answer.bundle.sha256.slice(0, 12) }; // a server may exchange it
  Object.assign(now, { answer, films, bundle, status: "answered", tookMs: Math.round(took) });
  if (stage.film !== films[0]) stage.show(films[0]);
  strip.render(films, 0);
  relist();
  requestAnimationFrame(() => setTimeout(() => {
    performance.mark("weakray:answer");
    prepareMaps(now.turn);
  }));
}

/** Decodes the maps ahead, those of the film shown first, in the order of the list. */
async function prepareMaps(turn) {
  const order = [now.index, ...now.films.keys()].filter((index, i, all) => all.indexOf(index) === i);
  for (const index of order) {
    for (const record of records(now.answer, index)) {
      await mapOf(index, record);
      if (turn !== now.turn) return;
    }
  }
  performance.mark("weakray:maps");
}

/** A promise of the coloured map; the canvas itself stands in `now.maps` once it is there. */
async function mapOf(index, record) {
  const key = `${index} ${record.name}`;
  const { maps } = now;
  if (!maps.has(key)) maps.set(key, colouredMap(record.map).then((map) => (maps.set(key, map), map), () => (maps.set(key, null), null)));
  return maps.get(key);
}

function learnTruth(boxes) {
  now.truth = boxes;
  relist();
}

function fail(error, again) {
  if (!(error instanceof Refusal)) console.error(error); // a defect of the page: its trace is worth more than silence
  now.alert = told(error);
  now.again = again;
  now.status = "idle";
  renderAll();
  at(again ? "alert-retry" : "alert-close").focus();
}

// Showing ------------------------------------------------------------------------------------------------------------

const shownRecord = () => now.list.find((record) => record.name === (now.hovered ?? now.chosen)) ?? null;

/** Lays what belongs to the finding shown over the film: synchronous where its map is decoded. */
function lay() {
  const record = now.peek ? null : shownRecord();
  list.mark(now.chosen, shownRecord()?.name ?? null);
  const { height, width } = now.answer?.images[now.index] ?? {};
  const truth = now.layers.truth && now.truth && !now.peek ? knownBoxes(now.truth, now.list, record?.name ?? null) : [];
  if (!record) {
    stage.lay(truth.length ? { map: null, opacity: 0, boxes: [], truth, size: { height, width } } : null);
  } else {
    const map = now.maps.get(`${now.index} ${record.name}`);
    const ready = map && !(map instanceof Promise);
    if (!ready && record.map) mapOf(now.index, record).then((late) => late && shownRecord() === record && lay());
    stage.lay({ map: ready && now.layers.map ? map : null, opacity: now.opacity, boxes: now.layers.boxes ? record.boxes : [], truth, size: { height, width } });
  }
  const own = record && now.layers.truth && now.truth ? now.truth.filter((box) => box.finding === record.name).map((box) => box.xyxy_px) : null;
  if (now.answer) showDetail(at("detail"), shownRecord(), { several: now.films.length > 1, truth: own });
  const film = now.films.length > 1 ? say("filmNumber", { n: now.index + 1 }) : say("film");
  const row = record && document.getElementById(`finding-${record.order}`);
  at("view").setAttribute("aria-label", say("filmShown", { film, finding: row?.getAttribute("aria-label") ?? say("plainFilm") }));
  strip.boxed(record && now.answer.images.map((image) => image.findings.some((found) => found.finding === record.name && found.boxes.length)));
  document.documentElement.dataset.shown = record?.name ?? "";
}

function hover(name) {
  if (now.hovered === name) return;
  now.hovered = name;
  lay();
}

function choose(name) {
  now.chosen = name;
  now.hovered = null;
  lay();
}

function step(by) {
  const names = list.names;
  if (!names.length) return;
  const from = names.indexOf(now.chosen);
  const to = from < 0 ? (by > 0 ? 0 : names.length - 1) : Math.min(names.length - 1, Math.max(0, from + by));
  pick(names[to]);
}

/** Chooses by key: the keyboard goes to the list. */
function pick(name) {
  if (name === undefined) return;
  choose(name);
  list.focus(name);
}

function showFilm(index) {
  if (index < 0 || index >= now.films.length || index === now.index) return;
  now.index = index;
  stage.show(now.films[index]);
  strip.mark(index);
  now.preset = "full";
  relist();
}

/** Makes the list anew: another answer, film or truth. */
function relist() {
  if (!now.answer) return;
  now.list = records(now.answer, now.index);
  renderAll();
}

function renderAll() {
  renderPanel();
  at("film-name").textContent = at("film-name").title = filmLine();
  at("answered").textContent = now.answer ? say("answered", { ms: now.tookMs }) : "";
  at("bundle").textContent = now.bundle ? say("bundle", now.bundle) : "";
  at("busy").hidden = now.status !== "reading" && now.status !== "waiting";
  at("alert").hidden = !now.alert;
  if (now.alert) {
    at("alert-title").textContent = say(now.alert.title);
    at("alert-text").textContent = say(now.alert.text);
    at("alert-detail").textContent = now.alert.detail ? say("serverSays", { message: now.alert.detail }) : "";
    at("alert-retry").hidden = !now.again;
  }
  renderTools();
  showReadout();
}

function renderPanel() {
  if (now.answer) {
    at("headline").textContent = headline(now.list);
    at("standfirst").textContent = standfirst(now.list, now.films.length);
    list.render(arrange(now.list), { several: now.films.length > 1, truth: new Set((now.layers.truth ? now.truth ?? [] : []).map((box) => box.finding)) });
    lay();
    return;
  }
  at("headline").textContent = now.status === "waiting" ? say("waitingBusy", { n: now.waitS }) : say(now.status === "reading" ? "reading" : "idle");
  at("standfirst").textContent = now.status === "idle" && !now.alert ? say("idleHint") : "";
  list.clear();
  at("detail").replaceChildren();
}

function renderTools() {
  const pressed = (id, is) => at(id).setAttribute("aria-pressed", String(is));
  for (const tag of ["en", "fr"]) pressed(`lang-${tag}`, language() === tag);
  for (const [id, mode] of [["drag-move", "move"], ["drag-window", "window"]]) pressed(id, now.drag === mode);
  for (const layer of ["map", "boxes", "truth"]) pressed(`show-${layer}`, now.layers[layer]);
  for (const button of document.querySelectorAll("[data-preset]")) button.setAttribute("aria-pressed", String(button.dataset.preset === now.preset));
  pressed("invert", stage.tone.invert);
  at("show-truth").hidden = !now.truth;
  at("layers").hidden = !now.answer;
  at("view").dataset.drag = now.drag;
  at("theme").dataset.say = document.documentElement.dataset.theme === "dark" ? "lightTheme" : "darkTheme";
  at("theme").textContent = say(at("theme").dataset.say);
}

function showReadout() {
  const { tone, place } = stage;
  at("readout").textContent = stage.film ? say("readout", { width: Math.round(tone.width), level: Math.round(tone.level), zoom: Math.round(100 * place.scale) }) : "";
}

function filmLine() {
  const image = now.answer?.images[now.index];
  if (!image) return now.name;
  return [now.name, `${image.width} × ${image.height}`, image.source, ...image.notes].filter(Boolean).join(" · ");
}

// Acting -------------------------------------------------------------------------------------------------------------

const PAN_PX = 60;
const actions = {
  next: () => step(1),
  previous: () => step(-1),
  first: () => pick(list.names[0]),
  last: () => pick(list.names.at(-1)),
  plain: () => (at("start").hidden || !now.films.length ? choose(null) : toggleStart()),
  peek: () => peek(true),
  map: () => toggleLayer("map"),
  boxes: () => toggleLayer("boxes"),
  truth: () => now.truth && toggleLayer("truth"),
  previousFilm: () => showFilm(now.index - 1),
  nextFilm: () => showFilm(now.index + 1),
  full: () => preset("full"),
  auto: () => preset("auto"),
  lungs: () => preset("lungs"),
  mediastinum: () => preset("mediastinum"),
  narrower: () => tone({ width: stage.tone.width / 1.15 }),
  wider: () => tone({ width: stage.tone.width * 1.15 }),
  darker: () => tone({ level: stage.tone.level + 8 }),
  brighter: () => tone({ level: stage.tone.level - 8 }),
  invert: () => {
    stage.setTone({ invert: !stage.tone.invert });
    renderTools();
  },
  zoomIn: () => stage.zoom(1.25),
  zoomOut: () => stage.zoom(0.8),
  reset: () => {
    stage.fit();
    stage.setTone({ invert: false });
    preset("full");
  },
  left: () => stage.move(PAN_PX, 0),
  right: () => stage.move(-PAN_PX, 0),
  up: () => stage.move(0, PAN_PX),
  down: () => stage.move(0, -PAN_PX),
  open: () => at("file").click(),
  examples: () => examples.any && toggleStart(),
  theme: () => {
    document.documentElement.dataset.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    renderTools();
  },
  language: () => talk(language() === "en" ? "fr" : "en"),
  help: () => at("help").showModal(),
};

function toggleLayer(layer) {
  now.layers[layer] = !now.layers[layer];
  relist();
  renderTools();
}

function preset(name) {
  if (!stage.film) return;
  now.preset = name;
  stage.setTone(stage.film.preset(name));
  renderTools();
}

function tone(change) {
  now.preset = null;
  stage.setTone(change);
  renderTools();
}

function peek(held) {
  if (now.peek === held) return;
  now.peek = held;
  lay();
}

function toggleStart() {
  if (now.films.length) at("start").hidden = !at("start").hidden;
  if (!at("start").hidden) at("cards").querySelector("button")?.focus();
}

function talk(tag) {
  speak(tag);
  fillHelp();
  examples.render();
  strip.render(now.films, now.index);
  renderAll();
}

function opened(files) {
  const list = [...files]; // a copy: the browser empties its own
  if (list.length) return void read(async () => list);
  now.alert = { title: "errorEmpty", text: "errorNoFile", detail: "" };
  now.again = null;
  renderAll();
}

function closeAlert() {
  now.alert = null;
  at("start").hidden = now.films.length > 0;
  renderAll();
}

const pressable = { open: "open", "examples-button": "examples", theme: "theme", "help-button": "help", invert: "invert", "zoom-in": "zoomIn", "zoom-out": "zoomOut", "zoom-fit": "reset", "show-map": "map", "show-boxes": "boxes", "show-truth": "truth" };
for (const [id, action] of Object.entries(pressable)) at(id).addEventListener("click", actions[action]);
for (const button of document.querySelectorAll("[data-preset]")) button.addEventListener("click", () => preset(button.dataset.preset));
for (const mode of ["move", "window"]) at(`drag-${mode}`).addEventListener("click", () => ((now.drag = mode), renderTools()));
for (const tag of ["en", "fr"]) at(`lang-${tag}`).addEventListener("click", () => talk(tag));
at("alert-close").addEventListener("click", closeAlert);
at("alert-retry").addEventListener("click", () => now.again?.());
at("file").addEventListener("change", () => {
  if (at("file").files.length) opened(at("file").files);
  at("file").value = "";
});
at("opacity").addEventListener("input", () => {
  now.opacity = at("opacity").valueAsNumber / 100;
  lay();
});

document.addEventListener("keydown", (event) => {
  const tab = event.target instanceof Element && event.target.matches("[role=tab]");
  const action = tab && !event.shiftKey ? { ArrowDown: "nextFilm", ArrowUp: "previousFilm", ArrowRight: "nextFilm", ArrowLeft: "previousFilm" }[event.key] ?? actionOf(event) : actionOf(event);
  if (!action || taken(event)) return;
  event.preventDefault();
  if (action === "plain" && now.alert) closeAlert();
  else actions[action]();
  if (tab) strip.focus(now.index);
});
document.addEventListener("keyup", (event) => event.key === " " && peek(false));
window.addEventListener("blur", () => peek(false));

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("veil").hidden = false;
});
document.addEventListener("dragleave", (event) => event.relatedTarget === null && (at("veil").hidden = true));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("veil").hidden = true;
  opened(event.dataTransfer.files);
});
listen(at("view"), stage, {
  dragMode: () => now.drag,
  onTap: () => choose(null),
  onTone: () => {
    now.preset = null;
    renderTools();
  },
});

talk(preferred(navigator.languages));
client.json("v1/models").then((models) => {
  now.bundle = { version: models.weakray, sha256: models.bundle_sha256.slice(0, 12) };
  renderAll();
}, () => null); // the page works without it, and a refused token was asked for already
examples.load();
