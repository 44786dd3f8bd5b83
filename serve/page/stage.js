// Two canvases: the film below, the shown finding above. Pointing at a finding draws the upper one alone.
import { figure } from "./i18n.js";
import { fitted, moved, zoomed } from "./placing.js";

const FULL = { level: 127.5, width: 255, invert: false };

export class Stage {
  #view;
  #below;
  #above;
  #asked = false;
  #overlay = null;
  #colours;
  #font;
  film = null;
  place = { scale: 1, x: 0, y: 0 };
  tone = { ...FULL };
  #followsSize = true; // fitted, until the reader zooms or moves

  constructor(view, below, above, onChange) {
    this.#view = view;
    this.#below = below.getContext("2d", { alpha: false });
    this.#above = above.getContext("2d");
    this.onChange = onChange;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.#colours = { stage: colour("--stage"), detector: colour("--k-detector"), truth: colour("--k-truth") };
    this.#font = `600 13px ${colour("--sans")}`;
    new ResizeObserver(() => this.#resized()).observe(view);
  }

  /** Shows a film, fitted and as it is; null shows nothing. */
  show(film) {
    if (this.film !== film) this.film?.release();
    this.film = film;
    this.#overlay = null;
    this.tone = { ...FULL };
    this.#followsSize = true;
    if (film) this.place = fitted(film, this.#size());
    this.redraw();
    this.lay(null);
  }

  /** Lays map and boxes over the film, at once; null leaves it plain. */
  lay(overlay) {
    this.#overlay = overlay;
    this.#drawAbove();
  }

  fit() {
    if (!this.film) return;
    this.#followsSize = true;
    this.place = fitted(this.film, this.#size());
    this.redraw();
  }

  zoom(factor, point = this.#middle()) {
    if (!this.film) return;
    this.#followsSize = false;
    this.place = zoomed(this.place, factor, point, this.film, this.#size());
    this.redraw();
  }

  move(dx, dy) {
    if (!this.film) return;
    this.#followsSize = false;
    this.place = moved(this.place, dx, dy, this.film, this.#size());
    this.redraw();
  }

  setTone(change) {
    const { level, width, invert } = { ...this.tone, ...change };
    this.tone = { level: Math.min(255, Math.max(0, level)), width: Math.min(510, Math.max(2, width)), invert };
    this.redraw();
  }

  /** Draws both at the next frame. */
  redraw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.#drawBelow();
      this.#drawAbove();
      this.onChange();
    });
  }

  #size() {
    return { width: this.#view.clientWidth, height: this.#view.clientHeight };
  }

  #middle() {
    const { width, height } = this.#size();
    return { x: width / 2, y: height / 2 };
  }

  #resized() {
    const { width, height } = this.#size();
    for (const { canvas } of [this.#below, this.#above]) {
      canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
    }
    if (this.film && this.#followsSize) this.place = fitted(this.film, { width, height });
    this.redraw();
  }

  #drawBelow() {
    const context = this.#below;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.#colours.stage;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    if (!this.film) return;
    this.#placed(context, this.film.picture(this.tone));
  }

  #drawAbove() {
    const context = this.#above;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    if (!this.film || !this.#overlay) return;
    const { map, opacity, boxes, truth } = this.#overlay;
    if (map) {
      context.globalAlpha = opacity;
      this.#placed(context, map);
      context.globalAlpha = 1;
    }
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    const { detector, truth: green } = this.#colours;
    boxes.forEach((box, rank) => this.#box(box.xyxy_px, detector, rank ? 1.5 : 2.2, []));
    for (const box of truth) this.#box(box.xyxy_px, green, 2, [10, 3]);
    for (const box of truth) if (box.label) this.#label(box, box.label, green, false);
    for (const box of boxes) this.#label(box, figure(box.score), detector, true);
  }

  #placed(context, picture) {
    const { scale, x, y } = this.place;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const ratio = devicePixelRatio;
    context.drawImage(picture, x * ratio, y * ratio, this.film.width * scale * ratio, this.film.height * scale * ratio);
  }

  /** A box of the stored film, in the view; the answer may know the film at another size than the browser. */
  #inView([x0, y0, x1, y1]) {
    const { scale, x, y } = this.place;
    const { width = this.film.width, height = this.film.height } = this.#overlay.size ?? {};
    const [sx, sy] = [(this.film.width / width) * scale, (this.film.height / height) * scale];
    return [x + x0 * sx, y + y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy];
  }

  #box(xyxy, colour, width, dash) {
    const context = this.#above;
    const [x, y, w, h] = this.#inView(xyxy);
    context.lineJoin = "round";
    context.setLineDash(dash);
    for (const [style, extra] of [["rgba(0, 0, 0, .5)", 1.6], [colour, 0]]) {
      context.strokeStyle = style;
      context.lineWidth = width + extra;
      context.strokeRect(x, y, w, h);
    }
    context.setLineDash([]);
  }

  #label({ xyxy_px: xyxy }, text, colour, above) {
    const context = this.#above;
    const [x, y, , h] = this.#inView(xyxy);
    context.font = this.#font;
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = "rgba(0, 0, 0, .75)";
    context.fillStyle = colour;
    const at = above ? (y < 18 ? y + 15 : y - 5) : y + h + 15;
    context.strokeText(text, x + 1, at);
    context.fillText(text, x + 1, at);
  }
}
