// Plays frames through a callback at a frame rate, leaving frames out where drawing is slower.

export class Player {
  // show(frame) draws one; frames() says how many there are; changed() is told when it starts or stops.
  constructor({ show, frames, changed = () => {}, rate = 16, loop = true }) {
    Object.assign(this, { show, frames, changed, rate, loop });
    this.playing = false;
    this.request = 0;
  }

  // Begins at a frame; at the last one it begins anew.
  play(from = 0) {
    if (this.playing) return;
    this.playing = true;
    const start = from >= this.frames() - 1 ? 0 : from;
    let began = null,
      last = -1;
    const step = (now) => {
      if (!this.playing) return;
      began ??= now;
      const { frame, ended } = frameAt(start, now - began, this.rate, this.frames(), this.loop);
      if (frame !== last) this.show((last = frame));
      if (ended) this.pause();
      else this.request = requestAnimationFrame(step);
    };
    this.request = requestAnimationFrame(step);
    this.changed();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.request);
    this.changed();
  }

  toggle(from) {
    if (this.playing) this.pause();
    else this.play(from);
  }
}

// Which frame is due some milliseconds after `start` was shown, and whether the clip is over.
export function frameAt(start, milliseconds, rate, frames, loop) {
  const count = Math.max(frames, 1),
    passed = start + Math.floor((milliseconds * rate) / 1000);
  const ended = !loop && passed >= count;
  return { frame: ended ? count - 1 : passed % count, ended };
}
