// The pictures of a clip as the browser decodes them: fetched once, decoded a little ahead, and let go when they take
// too much room.

const MOST_BYTES = 256 * 2 ** 20;
const AHEAD = 4;
const AT_ONCE = 3;

export class Frames {
  // entries: [{path, width}]: where a picture is and how wide the panorama really is, where that is known.
  // fetchPath(path) -> a Response; limit() the longest side that can be shown; changed() is told of every new picture.
  constructor(entries, { fetchPath, limit, changed, bytes = MOST_BYTES }) {
    Object.assign(this, { entries, fetchPath, limit, changed, bytes });
    this.files = new Map(); // number -> a Blob
    this.pictures = new Map(); // number -> an ImageBitmap, the one used last at the end
    this.busy = new Set();
    this.most = AHEAD + 2; // pictures that are kept
    this.shown = null;
    this.failed = false;
    this.disposed = false;
  }

  get count() {
    return this.entries.length;
  }

  // The picture of a frame, or null while it is on its way; those after it are made ready, too.
  at(number) {
    const picture = this.pictures.get(number) ?? null;
    if (picture) {
      this.shown = picture;
      this.pictures.delete(number);
      this.pictures.set(number, picture);
    }
    this.wanted = number;
    this.#load();
    return picture;
  }

  dispose() {
    this.disposed = true;
    for (const picture of this.pictures.values()) picture.close();
    this.pictures.clear();
    this.files.clear();
  }

  // One is shown and may have to stay until the next is there.
  get #ahead() {
    return Math.min(AHEAD, this.count - 1, this.most - 2);
  }

  #load() {
    if (this.disposed || this.failed) return;
    for (let step = 0; step <= this.#ahead && this.busy.size < AT_ONCE; step++) {
      const number = (this.wanted + step) % this.count;
      if (!this.pictures.has(number) && !this.busy.has(number)) this.#read(number);
    }
  }

  async #read(number) {
    this.busy.add(number);
    try {
      let file = this.files.get(number);
      if (!file) {
        const answer = await this.fetchPath(this.entries[number].path);
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        this.files.set(number, (file = await answer.blob()));
      }
      this.#keep(number, await decoded(file, this.limit()));
    } catch (error) {
      if (!this.disposed) console.warn("Panorama Preview:", this.entries[number].path, error);
      this.failed = true;
    }
    this.busy.delete(number);
    if (this.disposed) return;
    this.changed();
    this.#load();
  }

  #keep(number, picture) {
    if (this.disposed) return picture.close();
    this.pictures.set(number, picture);
    this.most = Math.max(2, Math.floor(this.bytes / (4 * picture.width * picture.height)));
    for (const [old, unused] of [...this.pictures]) {
      if (this.pictures.size <= this.most) break;
      if (unused === this.shown || this.#soon(old)) continue;
      unused.close();
      this.pictures.delete(old);
    }
  }

  #soon(number) {
    return (number - this.wanted + this.count) % this.count <= this.#ahead;
  }
}

// A file's picture, its colours as they are in the file, made smaller where it is larger than the device takes.
async function decoded(file, limit) {
  const plain = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const picture = await createImageBitmap(file, plain);
  const size = limit / Math.max(picture.width, picture.height);
  if (!limit || size >= 1) return picture;
  const resizeHeight = Math.max(1, Math.floor(picture.height * size)),
    resizeWidth = Math.max(1, Math.round((picture.width * resizeHeight) / picture.height)); // its shape kept exactly
  const smaller = await createImageBitmap(picture, { ...plain, resizeWidth, resizeHeight, resizeQuality: "high" });
  smaller.fullWidth = picture.width;
  picture.close();
  return smaller;
}
