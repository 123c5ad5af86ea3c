// Undo and redo of a text: every state is kept whole, as many as fit.

const MOST_STATES = 200;
const MOST_CHARACTERS = 20_000_000;

export class History {
  constructor(text = "", { states = MOST_STATES, characters = MOST_CHARACTERS } = {}) {
    this.most = { states, characters };
    this.reset(text);
  }

  reset(text) {
    this.states = [text];
    this.at = 0;
  }

  get text() {
    return this.states[this.at];
  }
  get canUndo() {
    return this.at > 0;
  }
  get canRedo() {
    return this.at < this.states.length - 1;
  }

  // A new state; what was undone is forgotten. Returns whether it differs from the last one.
  push(text) {
    if (text === this.text) return false;
    this.states.length = this.at + 1;
    this.states.push(text);
    let total = this.states.reduce((sum, state) => sum + state.length, 0);
    // The newest and the one before it stay, however long they are.
    while (this.states.length > 2 && (this.states.length > this.most.states || total > this.most.characters))
      total -= this.states.shift().length;
    this.at = this.states.length - 1;
    return true;
  }

  undo() {
    if (this.canUndo) this.at--;
    return this.text;
  }

  redo() {
    if (this.canRedo) this.at++;
    return this.text;
  }
}
