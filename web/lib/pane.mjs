// One picture on an editor's canvas: what is connected to an input of the node, and where it lies.

import { pictureSource } from "./picture_source.mjs";
import { View } from "./view.mjs";

export class Pane {
  // changed(pane) is told when there is another picture, or none; `input` is null where none is wanted.
  constructor(input, changed) {
    Object.assign(this, { input, changed, view: new View(), picture: null, path: null, connected: false });
    this.failed = false;
    this.shown = null; // the picture of the node's own last run
  }

  // Looks at what is connected now.
  watch(node, api) {
    if (!this.input) return;
    const { connected, path } = pictureSource(node, this.input, this.shown);
    const same = connected === this.connected && path === this.path;
    this.connected = connected;
    if (path !== this.path) this.#load(path, api);
    else if (!same) this.changed(this);
  }

  #load(path, api) {
    Object.assign(this, { path, failed: false });
    if (!path) return this.#show(null);
    const image = new Image();
    image.addEventListener("load", () => this.path === path && this.#show(image));
    image.addEventListener("error", () => {
      if (this.path !== path) return;
      this.failed = true;
      this.#show(null);
    });
    image.src = api.apiURL(path);
  }

  #show(image) {
    this.picture = image;
    if (image) this.view.picture = { width: image.naturalWidth, height: image.naturalHeight };
    this.changed(this);
  }

  draw(context) {
    const { x, y, width, height } = this.view.frame;
    if (this.picture) {
      context.imageSmoothingQuality = "high";
      context.drawImage(this.picture, x, y, width, height);
      return;
    }
    context.fillStyle = "#1b1d21";
    context.fillRect(x, y, width, height);
    context.strokeStyle = "#4a4f58";
    context.setLineDash([6, 5]);
    context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    context.setLineDash([]);
    context.fillStyle = "#a3abb8";
    context.font = "13px Inter, system-ui, sans-serif";
    context.textAlign = "center";
    const words = this.emptyWords(),
      top = y + height / 2 - ((words.length - 1) / 2) * 19;
    words.forEach((line, index) => context.fillText(line, x + width / 2, top + index * 19, width - 16));
  }

  // What stands in place of a picture, in lines.
  emptyWords() {
    if (!this.input) return [];
    if (this.failed) return ["The picture could not be loaded.", "Choose another one in the node before this one."];
    if (this.path) return ["Loading the picture"];
    if (this.connected) return ["Run once to see the picture here", "(before that only Load Image shows it)"];
    return [`Connect a picture to ${this.input}`, "(drawing works without one, too)"];
  }
}
