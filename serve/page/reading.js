// From dropped files to an answer and its pictures.
import { Film, fromBase64, sniff } from "./film.js";

/**
 * Asks the server about one study, and decodes in the browser what the browser decodes as the server does; of the
 * rest the server sends pictures. `onFilm` is given the first film as soon as the browser has it.
 */
export async function readStudy(client, blobs, { signal, onWait, onFilm }) {
  const kinds = await Promise.all(blobs.map(sniff));
  const files = blobs.map((blob, i) => blob.slice(0, blob.size, kinds[i].type));
  const ask = (film) => client.predict(files, { film, signal, onWait });
  const asked = ask(kinds.some((kind) => !kind.local));
  asked.catch(() => null); // awaited below; until then a refusal is not unhandled
  const own = await Promise.all(files.map((file, i) => (kinds[i].local ? decoded(file) : null)));
  if (own[0] && !signal.aborted) onFilm(own[0]);
  let answer = await asked;
  const ownOf = (index) => (answer.images.length === own.length ? own[index] : null);
  if (!answer.images.every((image, i) => image.film || ownOf(i))) answer = await ask(true);
  const films = answer.images.map((image, i) => ownOf(i) ?? Film.from(fromBase64(image.film, "image/png")));
  return { answer, films: await Promise.all(films) };
}

/** A film, or null for a file that is broken: the server says what is wrong with it. */
const decoded = (file) => Film.from(file).catch(() => null);
