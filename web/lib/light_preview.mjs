// The light of a frame, drawn on a canvas of its own; large maps are drawn smaller.

import { drawLights } from "./light_maps.mjs";

const MOST_PIXELS = 384; // along the longer side: a light then takes milliseconds

export class LightPreview {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.made = null;
  }

  // The canvas with a frame on it. Lights are compared by identity: what did not change is kept.
  frame(lights, frame, width, height, style) {
    const size = Math.min(1, MOST_PIXELS / Math.max(width, height));
    const wide = Math.max(1, Math.round(width * size)),
      high = Math.max(1, Math.round(height * size));
    const made = [lights, frame, wide, high, style];
    if (this.made?.every((value, index) => value === made[index])) return this.canvas;
    this.made = made;
    if (!this.image || this.canvas.width !== wide || this.canvas.height !== high) {
      Object.assign(this.canvas, { width: wide, height: high });
      this.image = new ImageData(wide, high);
    }
    drawLights(lights, frame, wide, high, style, this.image.data);
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
    return this.canvas;
  }
}
