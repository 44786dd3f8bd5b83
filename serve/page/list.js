// The list of findings: a listbox of bars, grouped by decision.
import { findingName, say } from "./i18n.js";
import { boxesSaid, decisionSaid, percent, sureness, wordOf } from "./words.js";

export class FindingList {
  #root;
  #rows = new Map(); // finding → its element
  #onHover;

  constructor(root, { onHover, onPick }) {
    this.#root = root;
    this.#onHover = onHover;
    root.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && onHover(null));
    root.addEventListener("click", (event) => {
      const row = event.target.closest(".finding");
      if (row) onPick(row.dataset.finding);
    });
  }

  /** The findings in the order they stand in. */
  get names() {
    return [...this.#rows.keys()];
  }

  clear() {
    this.#rows.clear();
    this.#root.removeAttribute("aria-activedescendant");
    this.#root.replaceChildren();
    this.#root.tabIndex = -1;
  }

  /** `several`: a study of several films, where a ring marks the film shown; `truth`: findings with a true box. */
  render(groups, { several, truth }) {
    this.clear();
    this.#root.tabIndex = 0;
    for (const { standing, rows } of groups) {
      const group = made("div", "group");
      const name = made("div", "group-name", say(`${standing}Group`));
      name.id = `group-${standing}`;
      name.setAttribute("role", "presentation");
      group.setAttribute("role", "group");
      group.setAttribute("aria-labelledby", name.id);
      group.append(name, ...rows.map(({ record, depth }) => this.#row(record, depth, several, truth)));
      this.#root.append(group);
    }
  }

  /** Marks the finding chosen (it stays) and the one shown (it may only be pointed at). */
  mark(chosen, shown) {
    for (const [name, row] of this.#rows) {
      row.setAttribute("aria-selected", String(name === chosen));
      row.classList.toggle("shown", name === shown);
    }
    const row = this.#rows.get(chosen);
    if (row) this.#root.setAttribute("aria-activedescendant", row.id);
    else this.#root.removeAttribute("aria-activedescendant");
  }

  /** Brings a finding into sight and the keyboard to the list. */
  focus(name) {
    this.#root.focus({ preventScroll: true });
    this.#rows.get(name)?.scrollIntoView({ block: "nearest" });
  }

  #row(record, depth, several, truth) {
    const row = made("div", `finding ${record.standing}`);
    row.id = `finding-${record.order}`;
    row.dataset.finding = record.name;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    const name = findingName(record.name);
    const said = { name, sureness: sureness(record.probability), decision: decisionSaid(record), boxes: boxesSaid(record) };
    row.setAttribute("aria-label", say("rowName", said));
    row.style.setProperty("--depth", depth);
    row.style.setProperty("--p", record.probability);
    row.style.setProperty("--t", record.threshold);
    row.style.setProperty("--f", record.filmProbability);
    const bar = made("span", "bar");
    bar.append(made("i", "fill"), made("i", "threshold"));
    if (several) bar.append(made("i", "here"));
    const label = made("span", "name", name);
    label.title = name;
    const word = made("span", "word", say(wordOf(record.probability)));
    if (truth.has(record.name)) word.prepend(made("i", "true"));
    row.append(made("span", "mark"), label, word, made("span", "number", percent(record.probability)), bar);
    row.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && this.#onHover(record.name));
    this.#rows.set(record.name, row);
    return row;
  }
}

function made(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}
