// The page: what is read, what is shown of it, and who listens.
import { Client, Refusal } from "./api.js";
import { showDetail } from "./detail.js";
import { askToken, fillHelp, told } from "./dialogs.js";
import { Examples } from "./examples.js";
import { listen } from "./gestures.js";
import { language, preferred, say, speak } from "./i18n.js";
import { actionOf, taken } from "./keys.js";
import { FindingList } from "./list.js";
import { colouredMap } from "./maps.js";
import { readStudy } from "./reading.js";
import { Stage } from "./stage.js";
import { ThumbStrip } from "./thumbs.js";
import { knownBoxes } from "./truth.js";
import { arrange, hasBoxes, headline, records, standfirst } from "./words.js";

const at = (id) => document.getElementById(id);
const presets = document.querySelectorAll("[data-preset]");
const client = new Client(askToken);
const stage = new Stage(at("view"), at("film-layer"), at("finding-layer"), showReadout);
const list = new FindingList(at("findings"), {
  onHover: hover,
  onPick: (name) => choose(name === now.chosen ? null : name),
});
const strip = new ThumbStrip(at("films"), showFilm);
const examples = new Examples(client, at("cards"), at("examples-button"), (example) =>
  read(async () => [await examples.blobOf(example)], example),
);

/** What belongs to one study. `status`: idle, reading, waiting or answered; `maps` holds canvases or their promises. */
const study = (name, status) => ({
  name,
  status,
  answer: null,
  films: [],
  index: 0, // of the film shown
  list: [], // records of the findings, for that film
  maps: new Map(),
  truth: null,
  chosen: null, // stays shown
  hovered: null, // is shown while pointed at
  peek: false, // nothing is laid over while Space is held
  preset: "full",
  waitS: 0,
  tookMs: 0,
  alert: null,
});
const now = {
  ...study("", "idle"),
  turn: 0, // counts studies: what comes late for another one is dropped
  abort: null,
  again: null,
  layers: { map: true, boxes: true, truth: false },
  opacity: 0.5,
  drag: "move",
  bundle: null,
};

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
    if (example?.truth) learnTruth(example, turn);
    const { answer, films } = await readStudy(client, blobs, {
      signal: now.abort.signal,
      onWait: (seconds) => turn === now.turn && waiting(seconds),
      onFilm: (film) => stage.show(film),
    });
    if (turn === now.turn) answered(answer, films);
  } catch (error) {
    if (turn === now.turn) fail(error, () => read(bring, example));
  }
}

function begin(name) {
  now.abort?.abort();
  Object.assign(now, study(name, "reading"), { turn: now.turn + 1, abort: new AbortController() });
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

function answered(answer, films) {
  const took = performance.now() - performance.getEntriesByName("weakray:drop").at(-1).startTime;
  Object.assign(now, { answer, films, status: "answered", tookMs: Math.round(took) });
  name(answer.bundle.weakray, answer.bundle.sha256); // a server may have exchanged its bundle
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
  if (!maps.has(key)) {
    const coming = colouredMap(record.map).catch(() => null); // a map that no browser shows is none
    maps.set(key, coming);
    maps.set(key, await coming);
  }
  return maps.get(key);
}

async function learnTruth(example, turn) {
  try {
    const { boxes } = await client.json(`v1/examples/${encodeURIComponent(example.id)}/truth`);
    if (turn !== now.turn) return;
    now.truth = boxes;
    relist();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error; // refused, there is no truth to compare with: its button stays away
  }
}

function name(version, sha256) {
  now.bundle = { version, sha256: sha256.slice(0, 12) };
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
  const known = now.layers.truth ? now.truth : null;
  const truth = known && !now.peek ? knownBoxes(known, now.list, record?.name ?? null) : [];
  const boxes = record && now.layers.boxes ? record.boxes : [];
  const map = record && now.layers.map ? readyMap(record) : null;
  stage.lay(record || truth.length ? { map, opacity: now.opacity, boxes, truth, size: { height, width } } : null);
  if (now.answer) {
    const own = record && known ? known.filter((box) => box.finding === record.name).map((box) => box.xyxy_px) : null;
    showDetail(at("detail"), shownRecord(), { several: now.films.length > 1, truth: own });
    strip.boxed(record && now.answer.images.map((image) => hasBoxes(image, record.name)));
  }
  const film = now.films.length > 1 ? say("filmNumber", { n: now.index + 1 }) : say("film");
  const row = record && at(`finding-${record.order}`);
  const finding = row?.getAttribute("aria-label") ?? say("plainFilm");
  at("view").setAttribute("aria-label", say("filmShown", { film, finding }));
  document.documentElement.dataset.shown = record?.name ?? "";
}

/** The map of a finding if it is decoded; else null, and all is laid again when it is. */
function readyMap(record) {
  const map = now.maps.get(`${now.index} ${record.name}`);
  if (map !== undefined && !(map instanceof Promise)) return map;
  mapOf(now.index, record).then((late) => late && shownRecord() === record && lay());
  return null;
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
    const known = now.layers.truth && now.truth ? now.truth : [];
    const truth = new Set(known.map((box) => box.finding));
    list.render(arrange(now.list), { several: now.films.length > 1, truth });
    lay();
    return;
  }
  const waits = now.status === "waiting";
  at("headline").textContent = waits ? say("waitingBusy", { n: now.waitS }) : say(now.status);
  at("standfirst").textContent = now.status === "idle" && !now.alert ? say("idleHint") : "";
  list.clear();
  at("detail").replaceChildren();
}

function renderTools() {
  const pressed = (id, is) => at(id).setAttribute("aria-pressed", String(is));
  for (const tag of ["en", "fr"]) pressed(`lang-${tag}`, language() === tag);
  for (const [id, mode] of [["drag-move", "move"], ["drag-window", "window"]]) pressed(id, now.drag === mode);
  for (const layer of ["map", "boxes", "truth"]) pressed(`show-${layer}`, now.layers[layer]);
  for (const button of presets) button.setAttribute("aria-pressed", String(button.dataset.preset === now.preset));
  pressed("invert", stage.tone.invert);
  at("show-truth").hidden = !now.truth;
  at("layers").hidden = !now.answer;
  at("view").dataset.drag = now.drag;
  at("theme").dataset.say = document.documentElement.dataset.theme === "dark" ? "lightTheme" : "darkTheme";
  at("theme").textContent = say(at("theme").dataset.say);
}

function showReadout() {
  const [width, level, zoom] = [stage.tone.width, stage.tone.level, 100 * stage.place.scale].map(Math.round);
  at("readout").textContent = stage.film ? say("readout", { width, level, zoom }) : "";
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

const pressable = {
  open: "open",
  "examples-button": "examples",
  theme: "theme",
  "help-button": "help",
  invert: "invert",
  "zoom-in": "zoomIn",
  "zoom-out": "zoomOut",
  "zoom-fit": "reset",
  "show-map": "map",
  "show-boxes": "boxes",
  "show-truth": "truth",
};
for (const [id, action] of Object.entries(pressable)) at(id).addEventListener("click", actions[action]);
for (const button of presets) button.addEventListener("click", () => preset(button.dataset.preset));
for (const mode of ["move", "window"]) {
  at(`drag-${mode}`).addEventListener("click", () => {
    now.drag = mode;
    renderTools();
  });
}
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

// On the films' tabs the arrows go from film to film.
const TAB_KEYS = { ArrowDown: "nextFilm", ArrowUp: "previousFilm", ArrowRight: "nextFilm", ArrowLeft: "previousFilm" };
document.addEventListener("keydown", (event) => {
  const tab = event.target instanceof Element && event.target.matches("[role=tab]");
  const action = (tab && !event.shiftKey && TAB_KEYS[event.key]) || actionOf(event);
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
  name(models.weakray, models.bundle_sha256);
  renderAll();
}, () => null); // the page works without it, and a refused token was asked for already
examples.load();
