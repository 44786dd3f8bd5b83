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
export const fromBase64 = (text, type) => new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });

export class Film {
  #source; // Uint32Array, RGBA as decoded
  #context;
  #shown = "";

  constructor(width, height, context) {
    this.width = width;
    this.height = height;
    this.canvas = context.canvas;
    this.#context = context;
    this.#source = new Uint32Array(context.getImageData(0, 0, this.canvas.width, this.canvas.height).data.buffer);
    this.histogram = histogramOf(this.#source);
  }

  static async from(blob) {
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const { width, height } = bitmap;
    const scale = Math.min(1, Math.sqrt(MOST_PX / (width * height)));
    const canvas = new OffscreenCanvas(Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale)));
    const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return new Film(width, height, context);
  }

  /** Draws the film into its canvas under a tone `{level, width, invert}` of grey values 0…255. */
  render({ level, width, invert }) {
    const key = `${level} ${width} ${invert}`;
    if (key === this.#shown) return;
    this.#shown = key;
    const table = toneTable(level, width, invert);
    const picture = this.#context.createImageData(this.canvas.width, this.canvas.height);
    const out = new Uint32Array(picture.data.buffer);
    const source = this.#source;
    for (let i = 0; i < out.length; i++) {
      const value = source[i];
      out[i] = 0xff000000 | (table[(value >> 16) & 255] << 16) | (table[(value >> 8) & 255] << 8) | table[value & 255];
    }
    this.#context.putImageData(picture, 0, 0);
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

function histogramOf(source) {
  const counts = new Uint32Array(256);
  for (let i = 0; i < source.length; i++) counts[(source[i] >> 8) & 255]++; // green: a grey film's planes are equal
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
