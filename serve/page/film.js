// A film in memory: its grey values, its windowed picture, its histogram. Nothing of it is stored.

// Some tablets refuse larger canvases; a larger film is shown reduced, in its own coordinates.
const MOST_PX = 16_000_000;

/** What a file is by its first bytes: its media type, and whether the browser shows it as the server decodes it. */
export async function sniff(file) {
  const head = new Uint8Array(await file.slice(0, 65536).arrayBuffer());
  const text = (from, to) => String.fromCharCode(...head.subarray(from, to));
  if (text(1, 4) === "PNG" && head[0] === 0x89) {
    const [depth, colour] = [head[24], head[25]];
    const plain = depth <= 8 && (colour === 0 || colour === 2 || colour === 3);
    return { type: "image/png", local: plain && !holds(head, "tRNS") && !holds(head, "eXIf") };
  }
  // Exif may turn a picture; the server reads pixels as they are stored.
  if (head[0] === 0xff && head[1] === 0xd8) return { type: "image/jpeg", local: !holds(head, "Exif") };
  if (text(128, 132) === "DICM") return { type: "application/dicom", local: false };
  return { type: "application/octet-stream", local: false };
}

function holds(bytes, word) {
  const codes = [...word].map((letter) => letter.charCodeAt(0));
  for (let at = bytes.indexOf(codes[0]); at >= 0; at = bytes.indexOf(codes[0], at + 1)) {
    if (codes.every((code, i) => bytes[at + i] === code)) return true;
  }
  return false;
}

/** Bytes of base64 text as a blob; no data: address, so that the strictest content policy holds. */
export function fromBase64(text, type) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length); // filled by a loop: a film has millions
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Blob([bytes], { type });
}

/** A decoded film. A grey one takes a byte a pixel; its picture exists only while it is shown. */
export class Film {
  #pixels; // Uint8Array of greys, or Uint32Array of RGBA where the film has colours
  #size; // of the picture: width, height
  #context = null;
  #shown = "";

  /** `picture` is ImageData; `width` and `height` are the stored film's, which may be larger. */
  constructor(width, height, picture) {
    this.width = width;
    this.height = height;
    this.#size = [picture.width, picture.height];
    const colours = new Uint32Array(picture.data.buffer);
    this.#pixels = greysOf(colours) ?? colours;
    this.histogram = histogramOf(this.#pixels);
  }

  static async from(blob) {
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const { width, height } = bitmap;
    const scale = Math.min(1, Math.sqrt(MOST_PX / (width * height)));
    const canvas = new OffscreenCanvas(Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale)));
    const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return new Film(width, height, context.getImageData(0, 0, canvas.width, canvas.height));
  }

  /** The film as a canvas under a tone `{level, width, invert}` of grey values 0…255. */
  picture({ level, width, invert }) {
    const key = `${level} ${width} ${invert}`;
    if (key === this.#shown) return this.#context.canvas;
    this.#context ??= new OffscreenCanvas(...this.#size).getContext("2d", { alpha: false });
    this.#shown = key;
    const table = toneTable(level, width, invert);
    const picture = this.#context.createImageData(...this.#size);
    const out = new Uint32Array(picture.data.buffer);
    if (this.#pixels instanceof Uint8Array) {
      const greys = Uint32Array.from(table, (grey) => 0xff000000 | (grey << 16) | (grey << 8) | grey);
      for (let i = 0; i < out.length; i++) out[i] = greys[this.#pixels[i]];
    } else {
      for (let i = 0; i < out.length; i++) {
        const value = this.#pixels[i];
        const [red, green, blue] = [table[value & 255], table[(value >> 8) & 255], table[(value >> 16) & 255]];
        out[i] = 0xff000000 | (blue << 16) | (green << 8) | red;
      }
    }
    this.#context.putImageData(picture, 0, 0);
    return this.#context.canvas;
  }

  /** Gives the picture's memory back. */
  release() {
    this.#context = null;
    this.#shown = "";
  }

  /** The tone of a preset; all but `full` look at this film's own grey values. */
  preset(name) {
    const ends = { full: [0, 1], auto: [0.01, 0.99], lungs: [0.01, 0.6], mediastinum: [0.4, 0.995] }[name];
    if (name === "full") return { level: 127.5, width: 255 };
    const [low, high] = ends.map((share) => quantile(this.histogram, share));
    return { level: (low + high) / 2, width: Math.max(2, high - low) };
  }
}

/** Grey 0…255 → shown 0…255: linear inside the window, cut outside. */
export function toneTable(level, width, invert) {
  const low = level - width / 2;
  return Uint8Array.from({ length: 256 }, (_, grey) => {
    const shown = Math.min(1, Math.max(0, (grey - low) / width));
    return Math.round(255 * (invert ? 1 - shown : shown));
  });
}

/** A byte a pixel where red, green and blue are equal everywhere, else null. */
function greysOf(colours) {
  const greys = new Uint8Array(colours.length);
  for (let i = 0; i < greys.length; i++) {
    const grey = colours[i] & 255;
    if ((colours[i] & 0xffffff) !== grey * 0x010101) return null;
    greys[i] = grey;
  }
  return greys;
}

function histogramOf(pixels) {
  const counts = new Uint32Array(256);
  const shift = pixels instanceof Uint8Array ? 0 : 8; // of colours, the green
  for (let i = 0; i < pixels.length; i++) counts[(pixels[i] >> shift) & 255]++;
  return counts;
}

/** The least grey value that at least `share` of the pixels do not exceed. */
export function quantile(counts, share) {
  const wanted = share * counts.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (let grey = 0; grey < 256; grey++) {
    seen += counts[grey];
    if (seen >= wanted) return grey;
  }
  return 255;
}
