// True boxes of an example: those of one finding, or all of them with their names.
import { findingName } from "./i18n.js";

/**
 * Boxes to draw. With a finding, its own; without, all, a box that several findings of one branch share once, under the
 * name furthest down the class tree.
 */
export function knownBoxes(truth, list, finding) {
  if (finding) return truth.filter((box) => box.finding === finding).map((box) => ({ ...box, label: "" }));
  const parents = new Map(list.map((record) => [record.name, record.parent]));
  const depth = (name) => (parents.get(name) ? 1 + depth(parents.get(name)) : 0);
  const deepest = new Map();
  for (const box of truth) {
    const key = box.xyxy_px.join(" ");
    const other = deepest.get(key);
    if (!other || depth(box.finding) > depth(other.finding)) deepest.set(key, box);
  }
  return [...deepest.values()].map((box) => ({ xyxy_px: box.xyxy_px, label: findingName(box.finding) }));
}
