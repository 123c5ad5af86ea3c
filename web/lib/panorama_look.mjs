// Where one looks in a panorama, as an editor's view: dragging turns, the wheel widens and narrows. Angles in degrees:
// yaw + looks to the right, pitch + looks up, fov is the field of view across the area. Points are [x, y] in fractions
// of the panorama, whose middle is straight ahead.

import { View } from "./view.mjs";

const START = { yaw: 0, pitch: 0, fov: 90 };
const NARROWEST = 5,
  WIDEST = 140; // of the area's longer side: beyond, everything but the middle is drawn out
const RADIANS = Math.PI / 180;

export class PanoramaLook extends View {
  reset() {
    super.reset();
    Object.assign(this, START);
  }

  // The area's longer side over its width.
  get #longer() {
    return Math.max(1, this.area.height / Math.max(this.area.width, 1));
  }

  // How far the picture plane at distance 1 reaches to each side, and up and down.
  get spread() {
    const across = Math.tan((this.fov * RADIANS) / 2);
    return [across, (across * this.area.height) / Math.max(this.area.width, 1)];
  }

  set spreadAcross(across) {
    const [low, high] = [NARROWEST, WIDEST].map((angle) => Math.tan((angle * RADIANS) / 2) / this.#longer);
    this.fov = (2 * Math.atan(Math.min(Math.max(across, low), high))) / RADIANS;
  }

  // The camera's axes in the world, one after the other: right, up, back.
  get axes() {
    const [a, b] = [Math.cos(this.yaw * RADIANS), Math.sin(this.yaw * RADIANS)];
    const [c, d] = [Math.cos(this.pitch * RADIANS), Math.sin(this.pitch * RADIANS)];
    return [a, 0, b, -d * b, c, d * a, -c * b, -d, c * a];
  }

  turn(yaw, pitch) {
    this.yaw = ((((this.yaw + yaw + 180) % 360) + 360) % 360) - 180;
    this.pitch = Math.min(Math.max(this.pitch + pitch, -90), 90);
  }

  // What is seen follows the pointer: exactly in the middle, nearly elsewhere.
  moveBy([x, y]) {
    const degrees = (2 * this.spread[0]) / Math.max(this.area.width, 1) / RADIANS;
    this.turn(-x * degrees, y * degrees);
  }

  zoomAt(place, factor) {
    const before = this.toPicture(place);
    this.spreadAcross = this.spread[0] / factor;
    const after = this.toPicture(place);
    const turned = (before[0] - after[0]) * 360;
    // Near the poles the same longitude is far away: there only the middle stays.
    if (Math.abs(this.pitch) < 60) this.turn(turned - 360 * Math.round(turned / 360), (after[1] - before[1]) * 180);
  }

  toPicture([x, y]) {
    const { area, axes } = this,
      [across, up] = this.spread;
    const ray = [
      ((2 * (x - area.x)) / area.width - 1) * across,
      (1 - (2 * (y - area.y)) / area.height) * up,
      -1,
    ];
    const [right, high, back] = [0, 1, 2].map((axis) => ray.reduce((sum, part, of) => sum + part * axes[3 * of + axis], 0));
    const longitude = Math.atan2(right, -back),
      latitude = Math.atan2(high, Math.hypot(right, back));
    return [longitude / (2 * Math.PI) + 0.5, 0.5 - latitude / Math.PI];
  }

  // Where a point is seen; what lies behind the camera, far outside the area.
  toCanvas([x, y]) {
    const longitude = (x - 0.5) * 2 * Math.PI,
      latitude = (0.5 - y) * Math.PI;
    const world = [Math.cos(latitude) * Math.sin(longitude), Math.sin(latitude), -Math.cos(latitude) * Math.cos(longitude)];
    const { area, axes } = this,
      [across, up] = this.spread;
    const seen = [0, 1, 2].map((of) => world.reduce((sum, part, axis) => sum + part * axes[3 * of + axis], 0));
    const ahead = Math.max(-seen[2], 1e-9);
    return [
      area.x + ((seen[0] / ahead / across + 1) * area.width) / 2,
      area.y + ((1 - seen[1] / ahead / up) * area.height) / 2,
    ];
  }
}
