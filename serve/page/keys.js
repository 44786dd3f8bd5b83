// Every key of the page, once: what listens and what the help shows are the same table.
import { made } from "./dom.js";
import { say } from "./i18n.js";

/** `text` is the help's line, `show` its keys (a key of the dictionary is translated), `on` maps a key to an action. */
export const KEYS = [
  { text: "keyNext", show: ["↓", "↑"], on: { ArrowDown: "next", ArrowUp: "previous" } },
  { text: "keyEnds", show: ["Home", "End"], on: { Home: "first", End: "last" } },
  { text: "keyPlain", show: ["Esc"], on: { Escape: "plain" } },
  { text: "keyPeek", show: ["keySpace"], on: { " ": "peek" } },
  { text: "keyLayers", show: ["M", "B", "T"], on: { m: "map", b: "boxes", t: "truth" } },
  {
    text: "keyFilms",
    show: ["P", "N"],
    on: { p: "previousFilm", n: "nextFilm", PageUp: "previousFilm", PageDown: "nextFilm" },
  },
  { text: "keyPresets", show: ["1", "2", "3", "4"], on: { 1: "full", 2: "auto", 3: "lungs", 4: "mediastinum" } },
  { text: "keyWidth", show: ["W", "keyShift", "W"], on: { w: "narrower", W: "wider" } },
  { text: "keyLevel", show: ["L", "keyShift", "L"], on: { l: "darker", L: "brighter" } },
  { text: "keyInvert", show: ["I"], on: { i: "invert" } },
  { text: "keyZoom", show: ["+", "−"], on: { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut" } },
  { text: "keyFit", show: ["0"], on: { 0: "reset" } },
  {
    text: "keyPan",
    show: ["keyShift", "← ↑ ↓ →"],
    on: { "Shift+ArrowLeft": "left", "Shift+ArrowRight": "right", "Shift+ArrowUp": "up", "Shift+ArrowDown": "down" },
  },
  { text: "keyOpen", show: ["O"], on: { o: "open" } },
  { text: "keyExamples", show: ["E"], on: { e: "examples" } },
  { text: "keyTheme", show: ["D"], on: { d: "theme" } },
  { text: "keyLanguage", show: ["G"], on: { g: "language" } },
  { text: "keyHelp", show: ["?"], on: { "?": "help" } },
];

const TABLE = Object.assign({}, ...KEYS.map((row) => row.on));

/** The action of a key event, or undefined. Digits count by their place too: some keyboards shift them. */
export function actionOf(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (event.shiftKey && event.key.startsWith("Arrow")) return TABLE[`Shift+${event.key}`];
  const digit = event.code.startsWith("Digit") ? event.code.slice(5) : "";
  return TABLE[event.key] ?? TABLE[event.key.toLowerCase()] ?? TABLE[digit];
}

/** Whether the focused element uses this key itself. */
export function taken(event) {
  const target = event.target;
  if (!(target instanceof Element)) return false;
  if (target.closest("dialog")) return true;
  if (target.matches("input[type=range]")) return /^(Arrow|Home|End|Page)/.test(event.key);
  return event.key === " " && target.matches("button");
}

/** Fills the help's list. */
export function listKeys(list) {
  list.replaceChildren();
  for (const { text, show } of KEYS) {
    const caps = show.map((key) => made("kbd", { textContent: key.startsWith("key") ? say(key) : key }));
    list.append(made("dt", {}, ...caps), made("dd", { textContent: say(text) }));
  }
}
