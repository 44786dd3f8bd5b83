// The list of findings: a listbox of bars, grouped by decision.
import { made } from "./dom.js";
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
      const said = say(`${standing}Group`);
      const name = made("div", { className: "group-name", id: `group-${standing}`, textContent: said });
      const own = rows.map(({ record, depth }) => this.#row(record, depth, several, truth));
      const group = made("div", { className: "group" }, name, ...own);
      name.setAttribute("role", "presentation");
      group.setAttribute("role", "group");
      group.setAttribute("aria-labelledby", name.id);
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
    const row = made("div", { className: `finding ${record.standing}`, id: `finding-${record.order}` });
    row.dataset.finding = record.name;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    const name = findingName(record.name);
    const sure = sureness(record.probability);
    const said = { name, sureness: sure, decision: decisionSaid(record), boxes: boxesSaid(record) };
    row.setAttribute("aria-label", say("rowName", said));
    row.style.setProperty("--depth", depth);
    row.style.setProperty("--p", record.probability);
    row.style.setProperty("--t", record.threshold);
    row.style.setProperty("--f", record.filmProbability);
    const word = made("span", { className: "word", textContent: say(wordOf(record.probability)) });
    if (truth.has(record.name)) word.prepend(made("i", { className: "true" }));
    const marks = ["fill", "threshold", ...(several ? ["here"] : [])];
    const bar = made("span", { className: "bar" }, ...marks.map((className) => made("i", { className })));
    row.append(
      made("span", { className: "mark" }),
      made("span", { className: "name", textContent: name, title: name }),
      word,
      made("span", { className: "number", textContent: percent(record.probability) }),
      bar,
    );
    row.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && this.#onHover(record.name));
    this.#rows.set(record.name, row);
    return row;
  }
}
