// The clip as the node makes it, drawn on a canvas of its own; large pictures are made smaller first.

import { Composite, fromBytes } from "./drag_motion.mjs";

const MOST_PIXELS = 1024; // along the longer side: a frame then takes milliseconds

export class MotionPreview {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.source = null;
    this.made = null;
  }

  // The canvas with a frame on it. Outlines and pictures are compared by identity: what did not change is kept.
  frame(picture, objects, frame, hole) {
    if (picture !== this.picture) this.#read(picture);
    const outlines = objects.map((object) => object.polygon);
    const same =
      this.made &&
      this.made.hole === hole &&
      outlines.length === this.made.outlines.length &&
      outlines.every((outline, index) => outline === this.made.outlines[index]);
    if (!same) {
      const clip = new Composite(this.source, this.canvas.width, this.canvas.height, objects, hole);
      this.made = { clip, outlines, hole };
    }
    this.made.clip.frameBytes(objects, frame, this.image.data);
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
    return this.canvas;
  }

  #read(picture) {
    this.picture = picture;
    this.made = null;
    const { naturalWidth: width, naturalHeight: height } = picture;
    const size = Math.min(1, MOST_PIXELS / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * size));
    this.canvas.height = Math.max(1, Math.round(height * size));
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    this.image = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.source = fromBytes(this.image.data);
  }
}
