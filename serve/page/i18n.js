// The page's language: texts by key, plural forms, numbers, names of findings.
import en from "./en.js";
import fr from "./fr.js";
import namesFr from "./names-fr.js";

const TEXTS = { en, fr };
let current = "en";

export const language = () => current;

/** The first of the browser's languages that the page speaks, else English. */
export function preferred(languages) {
  const known = languages.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => Object.hasOwn(TEXTS, tag));
  return known ?? "en";
}

export function speak(tag) {
  current = tag;
  document.documentElement.lang = tag;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.matches("button")) element.title = say(element.dataset.label);
  }
}

/** The text of a key; where it has plural forms, `values.n` chooses. */
export function say(key, values = {}) {
  const entry = TEXTS[current][key];
  if (entry === undefined) throw new Error(`no text for ${key}`);
  const text = typeof entry === "string" ? entry : entry[new Intl.PluralRules(current).select(values.n)];
  // No line ends before a percent sign or, in French, before a colon, semicolon, question or exclamation mark.
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name])).replace(/ (?=[%:;!?])/g, "\u00a0");
}

export const knows = (key) => Object.hasOwn(TEXTS[current], key);

/** A figure of [0, 1] with two digits. */
export const figure = (value) => value.toLocaleString(current, { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** "a, b and c", as the language joins. */
export const joined = (parts) => new Intl.ListFormat(current, { type: "conjunction" }).format(parts);

/** A finding's name to show; underscores are spaces. */
export function findingName(name) {
  const plain = name.replaceAll("_", " ");
  return (current === "fr" && namesFr[plain.toLowerCase()]) || plain;
}
