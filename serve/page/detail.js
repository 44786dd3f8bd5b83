// What is said of the finding shown, under the list.
import { made } from "./dom.js";
import { findingName, say } from "./i18n.js";
import { boxesSaid, decisionSaid, sureness, truthSaid } from "./words.js";

/** `truth`: the finding's true boxes, or null where none are known or shown. */
export function showDetail(root, record, { several, truth }) {
  if (!record) {
    root.replaceChildren(made("p", { className: "hint", textContent: say("pointAtOne") }));
    return;
  }
  const sure = made("span", { className: record.standing, textContent: sureness(record.probability) });
  const lines = [`${decisionSaid(record)} ${boxesSaid(record)}`];
  if (several) lines.push(say("thisFilm", { sureness: sureness(record.filmProbability) }));
  lines.push(say(record.agreement));
  if (!record.map) lines.push(say("noMap"));
  else if (record.map.high <= record.map.low) lines.push(say("flatMap"));
  if (truth) lines.push(truthSaid(record, truth));
  const apart = (line) => (line === say(record.agreement) && record.agreement !== "agree" ? "apart" : "");
  const items = lines.map((line) => made("li", { textContent: line, className: apart(line) }));
  root.replaceChildren(made("h3", {}, findingName(record.name), sure), made("ul", {}, ...items));
}
