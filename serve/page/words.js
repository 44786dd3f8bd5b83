// What is said of an answer: confidence in words, groups of findings, sentences.
import { figure, findingName, joined, say } from "./i18n.js";

const WORDS = [[0.9, "veryLikely"], [0.65, "likely"], [0.2, "possible"], [0.05, "unlikely"], [0, "veryUnlikely"]];

/** The word's key for a calibrated probability in [0, 1]. */
export const wordOf = (probability) => WORDS.find(([from]) => probability >= from)[1];

/** "72 %"; what rounding would make certain is said as a bound. A word's boundary is never rounded across. */
export function percent(probability) {
  if (probability < 0.01) return say("lessThanOne");
  if (probability > 0.99) return say("moreThanNinetyNine");
  const rounded = Math.round(100 * probability);
  const crossed = wordOf(rounded / 100) !== wordOf(probability);
  return say("number", { percent: crossed ? Math.floor(100 * probability) : rounded });
}

export const sureness = (probability) =>
  say("sureness", { word: say(wordOf(probability)), number: percent(probability) });

/**
 * One record a finding, for the film at `shown`, in the order of the server (the taxonomy's).
 *
 * A study's decision is the study's; boxes count on any of its films. `standing` is flagged, twice (a box where the
 * classifier does not decide for it) or absent.
 */
export function records(answer, shown) {
  const here = new Map(answer.images[shown].findings.map((found) => [found.finding, found]));
  return answer.study.findings.map((whole, order) => {
    const film = here.get(whole.finding);
    const boxed = answer.images.some((image) => hasBoxes(image, whole.finding));
    const standing = whole.decision ? "flagged" : boxed ? "twice" : "absent";
    const agreement = whole.decision === boxed ? "agree" : boxed ? "box_without_decision" : "decision_without_box";
    return {
      name: whole.finding,
      parent: film.parent,
      probability: whole.probability,
      threshold: whole.threshold,
      filmProbability: film.probability,
      boxes: film.boxes,
      map: film.map,
      standing,
      agreement,
      boxed,
      order,
    };
  });
}

/** Whether the detector drew boxes of a finding on an image of an answer. */
export const hasBoxes = (image, name) => image.findings.some((found) => found.finding === name && found.boxes.length);

/** The groups in reading order: flagged, worth a second look, the rest; each walked down the class tree. */
export function arrange(list) {
  return ["flagged", "twice", "absent"]
    .map((standing) => ({ standing, rows: walked(list, list.filter((record) => record.standing === standing)) }))
    .filter((group) => group.rows.length);
}

function walked(all, members) {
  const parents = new Map(all.map((record) => [record.name, record.parent]));
  const inside = new Set(members.map((record) => record.name));
  const above = (name) => {
    for (let at = parents.get(name); at; at = parents.get(at)) if (inside.has(at)) return at;
    return null;
  };
  const rows = [];
  const walk = (parent, depth) => {
    for (const record of members) {
      if (above(record.name) !== parent) continue;
      rows.push({ record, depth });
      walk(record.name, depth + 1);
    }
  };
  walk(null, 0);
  return rows;
}

const HEADLINE_LENGTH = 5;

/** What is flagged, by word, most probable first; a finding gives way to a flagged one below it in the class tree. */
export function headline(list) {
  const flagged = list.filter((record) => record.standing === "flagged");
  const parents = new Map(list.map((record) => [record.name, record.parent]));
  const covered = new Set();
  for (const record of flagged) for (let at = record.parent; at; at = parents.get(at)) covered.add(at);
  const told = flagged.filter((record) => !covered.has(record.name)).sort((a, b) => b.probability - a.probability);
  if (!told.length) return say("headlineNone");
  const names = Map.groupBy(told.slice(0, HEADLINE_LENGTH), (record) => wordOf(record.probability));
  const sentences = [...names].map(([word, records]) => {
    const parts = records.map((record) => findingName(record.name));
    const left = told.length - HEADLINE_LENGTH;
    if (left > 0 && records.at(-1) === told[HEADLINE_LENGTH - 1]) parts.push(say("headlineMore", { n: left }));
    const text = say(word);
    if (word.toLowerCase().endsWith("unlikely")) return say("headlineUnlikely", { word: text, names: joined(parts) });
    return say("headlineGroup", { word: text[0].toUpperCase() + text.slice(1), names: joined(parts) });
  });
  return sentences.join(" ");
}

/** The sentences under the headline. */
export function standfirst(list, films) {
  const twice = list.filter((record) => record.standing === "twice").map((record) => findingName(record.name));
  const parts = films > 1 ? [say("studyOf", { n: films })] : [];
  if (twice.length) parts.push(say("twiceSentence", { names: joined(twice) }));
  return parts.join(" ");
}

export const boxesSaid = (record) =>
  record.boxes.length
    ? say("boxCount", { n: record.boxes.length, score: figure(Math.max(...record.boxes.map((box) => box.score))) })
    : say(record.boxed ? "noBoxHere" : "noBox");

export const decisionSaid = (record) =>
  say(record.standing === "flagged" ? "above" : "below", { threshold: percent(record.threshold) });

/** What the truth says of a finding, given its true boxes `[x0, y0, x1, y1]`. */
export function truthSaid(record, truth) {
  if (!truth.length) return say("truthNone");
  const best = Math.max(0, ...truth.flatMap((box) => record.boxes.map((found) => iou(found.xyxy_px, box))));
  return best > 0 ? say("truthCount", { n: truth.length, iou: figure(best) }) : say("truthMissed", { n: truth.length });
}

/** Intersection over union of two half-open boxes. */
export function iou([ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]) {
  const width = Math.max(0, Math.min(ax1, bx1) - Math.max(ax0, bx0));
  const height = Math.max(0, Math.min(ay1, by1) - Math.max(ay0, by0));
  const both = width * height;
  return both / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - both);
}
