// Where pictures lie on a canvas: each fitted into its area with its sides kept, then zoomed and moved. All places are
// [x, y] in CSS pixels of the canvas, all points [x, y] in fractions of the picture.

const MARGIN = 12;
const ZOOMS = [0.2, 60];
const ALWAYS_SEEN = 24;

export class View {
  constructor() {
    this.area = { x: 0, y: 0, width: 1, height: 1 };
    this.picture = { width: 16, height: 9 };
    this.reset();
  }

  reset() {
    this.zoom = 1;
    this.pan = [0, 0];
  }

  // The picture's rectangle on the canvas.
  get frame() {
    const { area, picture } = this;
    const fit = Math.min((area.width - 2 * MARGIN) / picture.width, (area.height - 2 * MARGIN) / picture.height);
    const size = Math.max(fit, 1e-3) * this.zoom;
    const width = picture.width * size,
      height = picture.height * size;
    return {
      x: area.x + (area.width - width) / 2 + this.pan[0],
      y: area.y + (area.height - height) / 2 + this.pan[1],
      width,
      height,
    };
  }

  toCanvas([x, y]) {
    const frame = this.frame;
    return [frame.x + x * frame.width, frame.y + y * frame.height];
  }

  toPicture([x, y]) {
    const frame = this.frame;
    return [(x - frame.x) / frame.width, (y - frame.y) / frame.height];
  }

  // Zooms so that what lies under a place of the canvas stays there.
  zoomAt(place, factor) {
    const under = this.toPicture(place);
    this.zoom = Math.min(Math.max(this.zoom * factor, ZOOMS[0]), ZOOMS[1]);
    const moved = this.toCanvas(under);
    this.moveBy([place[0] - moved[0], place[1] - moved[1]]);
  }

  // A rim of the picture stays in its area.
  moveBy([x, y]) {
    this.pan = [this.pan[0] + x, this.pan[1] + y];
    const { area, frame } = this;
    const across = Math.min(ALWAYS_SEEN, frame.width),
      down = Math.min(ALWAYS_SEEN, frame.height);
    const left = Math.min(Math.max(frame.x, area.x + across - frame.width), area.x + area.width - across);
    const top = Math.min(Math.max(frame.y, area.y + down - frame.height), area.y + area.height - down);
    this.pan = [this.pan[0] + left - frame.x, this.pan[1] + top - frame.y];
  }

  contains([x, y]) {
    const { area } = this;
    return x >= area.x && x < area.x + area.width && y >= area.y && y < area.y + area.height;
  }
}

// Areas for several pictures on one canvas: side by side where it is wide, else one below the other.
export function splitAreas(count, width, height) {
  const beside = width >= height;
  return Array.from({ length: count }, (_, index) =>
    beside
      ? { x: (width * index) / count, y: 0, width: width / count, height }
      : { x: 0, y: (height * index) / count, width, height: height / count },
  );
}

// The handle nearest to a place, within the tolerance; of equally near ones the last, which is drawn on top.
// Handles: {at: place, radius?: how far the handle itself reaches}.
export function nearestHandle(handles, place, tolerance) {
  let best = null,
    least = tolerance;
  for (const handle of handles) {
    const far = Math.hypot(handle.at[0] - place[0], handle.at[1] - place[1]) - (handle.radius ?? 0);
    if (far <= least) [best, least] = [handle, far];
  }
  return best;
}
