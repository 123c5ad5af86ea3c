// The pictures of a clip as the browser decodes them: fetched once, decoded a little ahead, and let go when they take
// too much room.

const MOST_BYTES = 256 * 2 ** 20;
const AHEAD = 4;
const AT_ONCE = 3;

export class Frames {
  // entries: [{path, width}]: where a picture is and how wide the panorama really is, where that is known.
  // fetchPath(path) -> a Response; limit() the longest side that can be shown; changed() is told of every new picture.
  constructor(entries, { fetchPath, limit, changed }) {
    Object.assign(this, { entries, fetchPath, limit, changed });
    this.files = new Map(); // number -> a Blob
    this.pictures = new Map(); // number -> an ImageBitmap, the one used last at the end
    this.busy = new Set();
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

  #load() {
    if (this.disposed || this.failed) return;
    for (let step = 0; step <= Math.min(AHEAD, this.count - 1) && this.busy.size < AT_ONCE; step++) {
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
    const most = Math.max(AHEAD + 2, Math.floor(MOST_BYTES / (4 * picture.width * picture.height)));
    for (const old of this.pictures.keys()) {
      if (this.pictures.size <= most) break;
      if (this.#soon(old)) continue;
      this.pictures.get(old).close();
      this.pictures.delete(old);
    }
  }

  #soon(number) {
    return (number - this.wanted + this.count) % this.count <= AHEAD;
  }
}

// A file's picture, its colours as they are in the file, made smaller where it is larger than the device takes.
async function decoded(file, limit) {
  const plain = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const picture = await createImageBitmap(file, plain);
  const size = limit / Math.max(picture.width, picture.height);
  if (!limit || size >= 1) return picture;
  const smaller = await createImageBitmap(picture, {
    ...plain,
    resizeWidth: Math.max(1, Math.floor(picture.width * size)),
    resizeHeight: Math.max(1, Math.floor(picture.height * size)),
    resizeQuality: "high",
  });
  smaller.fullWidth = picture.width;
  picture.close();
  return smaller;
}
