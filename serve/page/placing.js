// Where the film lies in the view: stage = film · scale + offset, all in CSS pixels.

const MARGIN_PX = 14;
const MOST_SCALE = 24;

/** The whole film, centred. */
export function fitted(film, view) {
  const room = (side) => (view[side] - 2 * MARGIN_PX) / film[side];
  const scale = Math.max(0.01, Math.min(room("width"), room("height")));
  return { scale, x: (view.width - film.width * scale) / 2, y: (view.height - film.height * scale) / 2 };
}

/** Zoomed by a factor about a point of the view; never smaller than a third of the fitted film. */
export function zoomed(place, factor, point, film, view) {
  const least = fitted(film, view).scale / 3;
  const scale = Math.min(MOST_SCALE, Math.max(least, place.scale * factor));
  const real = scale / place.scale;
  return kept({ scale, x: point.x - (point.x - place.x) * real, y: point.y - (point.y - place.y) * real }, film, view);
}

export const moved = (place, dx, dy, film, view) => kept({ ...place, x: place.x + dx, y: place.y + dy }, film, view);

/** The view's centre never leaves the film, so that it cannot be lost. */
function kept(place, film, view) {
  const held = (at, size, room) => Math.min(room / 2, Math.max(room / 2 - size * place.scale, at));
  return { ...place, x: held(place.x, film.width, view.width), y: held(place.y, film.height, view.height) };
}
