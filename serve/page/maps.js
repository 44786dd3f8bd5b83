// Maps decoded ahead into coloured canvases: pointing at a finding then only draws.
import { fromBase64 } from "./film.js";

const FINE_PX = 256; // longer side of a coloured map

// The colours of the report's maps, from least to greatest.
const STOPS = [[0, 0x000004], [0.25, 0x420a68], [0.45, 0x932667], [0.65, 0xdd513a], [0.83, 0xfca50a], [1, 0xfcffa4]];

/** 256 colours, red in the lowest byte and alpha in the highest: the least values let the film through. */
const COLOURS = Uint32Array.from({ length: 256 }, (_, i) => {
  const v = i / 255;
  const above = Math.max(1, STOPS.findIndex(([at]) => at >= v));
  const [[from, one], [to, two]] = [STOPS[above - 1], STOPS[above]];
  const share = (v - from) / (to - from);
  const between = (shift) => Math.round(((one >> shift) & 255) * (1 - share) + ((two >> shift) & 255) * share);
  const [r, g, b] = [16, 8, 0].map(between);
  return (Math.round(255 * smooth((v - 0.12) / 0.5)) << 24) | (b << 16) | (g << 8) | r;
});

function smooth(v) {
  const cut = Math.min(1, Math.max(0, v));
  return cut * cut * (3 - 2 * cut);
}

/** A map of an answer as a canvas to lay over the film; null where there is none or it is flat. */
export async function colouredMap(map) {
  if (!map || map.high <= map.low) return null;
  const bitmap = await createImageBitmap(fromBase64(map.png, "image/png"), { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const grey = Float32Array.from({ length: width * height }, (_, i) => pixels[4 * i]);
  const scale = Math.max(1, FINE_PX / Math.max(width, height));
  const [fineWidth, fineHeight] = [Math.round(width * scale), Math.round(height * scale)];
  return painted(enlarged(grey, width, height, fineWidth, fineHeight), fineWidth, fineHeight);
}

/** Values, not colours, are interpolated: cubic (Catmull–Rom), rows then columns, edges repeated. */
export function enlarged(values, width, height, toWidth, toHeight) {
  const wide = new Float32Array(toWidth * height);
  const across = taps(width, toWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < toWidth; x++) {
      const { at, weight } = across[x];
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += weight[k] * values[y * width + at[k]];
      wide[y * toWidth + x] = sum;
    }
  }
  const fine = new Float32Array(toWidth * toHeight);
  const down = taps(height, toHeight);
  for (let y = 0; y < toHeight; y++) {
    const { at, weight } = down[y];
    for (let x = 0; x < toWidth; x++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += weight[k] * wide[at[k] * toWidth + x];
      fine[y * toWidth + x] = sum;
    }
  }
  return fine;
}

function taps(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const centre = ((i + 0.5) * from) / to - 0.5;
    const left = Math.floor(centre);
    const t = centre - left;
    const [t2, t3] = [t * t, t * t * t];
    const twice = [-t + 2 * t2 - t3, 2 - 5 * t2 + 3 * t3, t + 4 * t2 - 3 * t3, t3 - t2];
    const at = [-1, 0, 1, 2].map((k) => Math.min(from - 1, Math.max(0, left + k)));
    return { at, weight: twice.map((each) => each / 2) };
  });
}

function painted(values, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const out = new Uint32Array(picture.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = COLOURS[Math.min(255, Math.max(0, Math.round(values[i])))];
  context.putImageData(picture, 0, 0);
  return canvas;
}
