// What a panorama viewer shows: the pictures of the node's last run, or what a loader before it holds.

import { PanoramaLook } from "./panorama_look.mjs";
import { Frames } from "./panorama_frames.mjs";
import { sharedSphere } from "./panorama_sphere.mjs";
import { Pane } from "./pane.mjs";
import { pictureSource } from "./picture_source.mjs";
import { View } from "./view.mjs";

export class PanoramaPane extends Pane {
  constructor(input, changed) {
    super(input, changed);
    this.sphere = sharedSphere();
    this.look = new PanoramaLook();
    this.flat = new View();
    this.frame = 0;
    this.frames = null;
    this.taken = new Set(); // runs that were shown: they come back only by running again
    this.#choose();
  }

  get count() {
    return this.frames?.count ?? 0;
  }

  // Whether it is seen from within; else it lies flat.
  get round() {
    return this.sphere.ready && Boolean(this.picture) && this.picture.width === 2 * this.picture.height;
  }

  // The entries of a run: {filename, subfolder, type, width, height, frame_rate}.
  take(entries, again) {
    if (!entries?.length) return;
    const { type, subfolder, filename } = entries[0],
      key = JSON.stringify([type, subfolder, filename]);
    if (this.taken.has(key) && !again) return;
    this.taken.add(key);
    this.shown = entries;
  }

  watch(node, api) {
    this.sphere.use(this, () => {
      this.#choose();
      this.changed(this);
    });
    const { connected, path } = pictureSource(node, this.input, null);
    if (path !== this.loader) {
      if (this.loader !== undefined) this.shown = null;
      this.loader = path;
    }
    const source = this.shown ?? path;
    if (source === this.source && connected === this.connected) return;
    this.connected = connected;
    if (source === this.source) return this.changed(this);
    this.source = source;
    this.#open(connected || this.shown ? source : null, api);
  }

  // Shows a frame, as soon as it is there; until then the one before stays.
  seek(frame) {
    this.frame = Math.min(Math.max(frame, 0), Math.max(this.count - 1, 0));
    const picture = this.frames?.at(this.frame);
    if (!picture) return;
    this.picture = picture;
    this.#choose();
  }

  dispose() {
    this.frames?.dispose();
    this.sphere.leave(this);
  }

  // The picture as large as the canvas, as seen from within; it lies in the lower left corner of what is returned.
  drawn(width, height) {
    this.sphere.draw(this, this.picture, this.look, width, height);
    return this.sphere.canvas;
  }

  emptyWords() {
    if (this.frames?.failed) return ["The panorama could not be loaded.", "Run once more."];
    if (this.frames) return ["Loading the panorama"];
    if (this.connected) return ["Run once to look round here", "(before that only Load Image shows its picture)"];
    return [`Connect a panorama to ${this.input}`];
  }

  #open(source, api) {
    this.frames?.dispose();
    Object.assign(this, { frames: null, picture: null, frame: 0 });
    if (source) {
      const entries = Array.isArray(source)
        ? source.map((entry) => ({ path: plainPath(entry), width: entry.width }))
        : [{ path: source }];
      this.frames = new Frames(entries, {
        fetchPath: (path) => api.fetchApi(path),
        limit: () => this.sphere.limit,
        changed: () => {
          this.seek(this.frame);
          this.changed(this);
        },
      });
      this.seek(0);
    }
    this.#choose();
    this.changed(this);
  }

  #choose() {
    if (this.picture) this.flat.picture = { width: this.picture.width, height: this.picture.height };
    this.view = this.round || !this.picture ? this.look : this.flat;
    // An area that is not empty, before it is drawn for the first time.
    this.flat.area = this.look.area;
  }
}

// The file itself: it has no transparency that would have to be taken out.
function plainPath({ filename, subfolder = "", type }) {
  return `/view?${new URLSearchParams({ filename, subfolder, type })}`;
}
