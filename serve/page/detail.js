// What is said of the finding shown, under the list.
import { findingName, say } from "./i18n.js";
import { boxesSaid, decisionSaid, sureness, truthSaid } from "./words.js";

/** `truth`: the finding's true boxes, or null where none are known or shown. */
export function showDetail(root, record, { several, truth }) {
  if (!record) {
    const hint = Object.assign(document.createElement("p"), { className: "hint", textContent: say("pointAtOne") });
    root.replaceChildren(hint);
    return;
  }
  const title = Object.assign(document.createElement("h3"), { textContent: findingName(record.name) });
  title.append(Object.assign(document.createElement("span"), { className: record.standing, textContent: sureness(record.probability) }));
  const lines = [[decisionSaid(record)], [say(record.agreement), record.agreement !== "agree"]];
  lines[0][0] += ` ${boxesSaid(record)}`;
  if (several) lines.splice(1, 0, [say("thisFilm", { sureness: sureness(record.filmProbability) })]);
  if (!record.map) lines.push([say("noMap")]);
  else if (record.map.high <= record.map.low) lines.push([say("flatMap")]);
  if (truth) lines.push([truthSaid(record, truth)]);
  const list = document.createElement("ul");
  for (const [text, apart] of lines) list.append(Object.assign(document.createElement("li"), { textContent: text, className: apart ? "apart" : "" }));
  root.replaceChildren(title, list);
}
