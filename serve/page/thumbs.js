// The films of a study, side by side, as tabs.
import { made } from "./dom.js";
import { say } from "./i18n.js";

const SIDE_PX = 136;

export class ThumbStrip {
  #root;
  #onPick;

  constructor(root, onPick) {
    this.#root = root;
    this.#onPick = onPick;
  }

  /** A single film needs no tabs. */
  render(films, shown) {
    this.#root.hidden = films.length < 2;
    this.#root.replaceChildren(...(films.length < 2 ? [] : films.map((film, index) => this.#tab(film, index))));
    this.mark(shown);
  }

  mark(shown) {
    [...this.#root.children].forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === shown));
      tab.tabIndex = index === shown ? 0 : -1;
    });
  }

  /** Marks the films on which the finding shown has boxes: one truth value a film, or null for none shown. */
  boxed(films) {
    [...this.#root.children].forEach((tab, index) => {
      const has = Boolean(films?.[index]);
      tab.classList.toggle("boxed", has);
      const name = say("filmNumber", { n: index + 1 });
      tab.setAttribute("aria-label", has ? `${name}, ${say("boxOnFilm")}` : name);
    });
  }

  focus(index) {
    this.#root.children[index]?.focus();
  }

  #tab(film, index) {
    const scale = SIDE_PX / Math.max(film.width, film.height);
    const [width, height] = [film.width, film.height].map((side) => Math.max(1, Math.round(side * scale)));
    const canvas = made("canvas", { width, height });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(film.picture({ level: 127.5, width: 255, invert: false }), 0, 0, width, height);
    film.release(); // the stage makes its own when it draws
    const tab = made("button", { type: "button" }, canvas, say("filmNumber", { n: index + 1 }));
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "view");
    tab.addEventListener("click", () => this.#onPick(index));
    return tab;
  }
}
