// The server's example films as cards on the start screen.
import { made } from "./dom.js";
import { say } from "./i18n.js";

const PICTURED = 10; // films beyond are named, not fetched ahead

export class Examples {
  #client;
  #cards;
  #button;
  #onPick;
  #found = [];
  #pictures = new Map(); // id → canvas

  constructor(client, cards, button, onPick) {
    this.#client = client;
    this.#cards = cards;
    this.#button = button;
    this.#onPick = onPick;
  }

  get any() {
    return this.#found.length > 0;
  }

  async load() {
    try {
      this.#found = (await this.#client.json("v1/examples")).examples;
    } catch {
      return; // no examples to offer; films can be dropped all the same
    }
    this.#button.hidden = !this.any;
    this.render();
    for (const example of this.#found.slice(0, PICTURED)) {
      try {
        this.#pictures.set(example.id, await thumbnail(await this.blobOf(example)));
        this.render();
      } catch {
        continue; // no picture that a browser shows, such as DICOM: its card keeps its name
      }
    }
  }

  render() {
    const focused = document.activeElement?.dataset?.example;
    this.#cards.replaceChildren(...this.#found.map((example) => this.#card(example)));
    if (focused) this.#cards.querySelector(`[data-example="${CSS.escape(focused)}"]`)?.focus();
  }

  #card(example) {
    const button = made("button", { type: "button" });
    button.dataset.example = example.id;
    const picture = this.#pictures.get(example.id);
    if (picture) button.append(picture);
    button.append(example.title);
    if (example.truth) button.append(made("small", { textContent: say("withTruth") }));
    button.addEventListener("click", () => this.#onPick(example));
    return made("li", {}, button);
  }

  /** The film itself, fetched once. */
  async blobOf(example) {
    example.blob ??= await this.#client.blob(`v1/examples/${encodeURIComponent(example.id)}`);
    return example.blob;
  }
}

async function thumbnail(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, 236 / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = made("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return canvas;
}
