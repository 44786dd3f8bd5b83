// Mouse, pen and fingers on the view: move, window, zoom, fit, tap.

const WINDOW_STEP = 0.6; // grey values a pixel of dragging
const TAP_PX = 5;

/** `dragMode()` says what a plain drag does: "move" or "window". `onTap` is a press that did not drag. */
export function listen(view, stage, { dragMode, onTap, onTone }) {
  const pointers = new Map();
  let travelled = 0;

  view.addEventListener("pointerdown", (event) => {
    if (event.button === 1) return;
    view.setPointerCapture(event.pointerId);
    if (!pointers.size) travelled = 0;
    pointers.set(event.pointerId, spot(event));
  });

  view.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = spot(event);
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    pointers.set(event.pointerId, now);
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    travelled += Math.abs(dx) + Math.abs(dy);
    if (others.length) pinch(before, now, others[0]);
    else if (event.shiftKey || event.buttons & 2 || dragMode() === "window") {
      stage.setTone({ width: stage.tone.width + WINDOW_STEP * dx, level: stage.tone.level + WINDOW_STEP * dy });
      onTone();
    } else stage.move(dx, dy);
  });

  for (const end of ["pointerup", "pointercancel"]) {
    view.addEventListener(end, (event) => {
      const last = pointers.size === 1 && pointers.delete(event.pointerId);
      pointers.delete(event.pointerId);
      if (end === "pointerup" && last && event.button === 0 && travelled < TAP_PX) onTap();
    });
  }

  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    stage.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : event.deltaMode ? 0.05 : 0.0016)), spot(event));
  }, { passive: false });
  view.addEventListener("dblclick", () => stage.fit());
  view.addEventListener("contextmenu", (event) => event.preventDefault());

  function spot(event) {
    const { left, top } = view.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /** One finger moved from `before` to `now` while the other rests at `still`. */
  function pinch(before, now, still) {
    const middle = { x: (now.x + still.x) / 2, y: (now.y + still.y) / 2 };
    const apart = (one) => Math.max(20, Math.hypot(one.x - still.x, one.y - still.y));
    stage.move((now.x - before.x) / 2, (now.y - before.y) / 2);
    stage.zoom(apart(now) / apart(before), middle);
  }
}
