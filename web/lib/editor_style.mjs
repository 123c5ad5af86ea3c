// The looks of the editors: ComfyUI's own theme colours inside the editor's shadow tree, where no other style sheet
// reaches. Below 640 px of its own width an editor stacks its parts.

export const COLOURS = { accent: "#4f9dff", key: "#ffc24b", line: "#ffffff", shade: "rgba(0, 0, 0, 0.65)" };

export const STYLE = `
:host { display: block; box-sizing: border-box; width: 100%; height: 100%; min-height: 0; outline: none; }
* { box-sizing: border-box; }
dialog { width: 100vw; height: 100vh; height: 100dvh; max-width: none; max-height: none; margin: 0; padding: 8px;
  border: 0; background: var(--comfy-menu-bg, #171718); overflow: hidden; pointer-events: auto; visibility: visible; }
dialog::backdrop { background: rgba(0, 0, 0, 0.6); }
.root { container: editor / inline-size; height: 100%; color: var(--input-text, #ddd);
  font: 12px/1.35 Inter, system-ui, sans-serif; }
.panel { display: flex; flex-direction: column; gap: 6px; height: 100%; padding: 6px; overflow: auto;
  background: var(--comfy-menu-bg, #171718); border: 1px solid var(--border-color, #4e4e4e); border-radius: 8px; }
.panel:focus-within { border-color: ${COLOURS.accent}; }
.bar { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; flex: none; }
.group { display: inline-flex; gap: 2px; padding: 2px; border-radius: 7px; background: var(--comfy-input-bg, #222);
  flex-wrap: wrap; }
.spring { flex: 1 1 0; }
button, select, input { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); height: 26px; margin: 0;
  border: 1px solid transparent; border-radius: 5px; padding: 0 5px; min-width: 0; }
select, input, textarea { border-color: var(--border-color, #4e4e4e); }
textarea { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); margin: 0; padding: 3px 5px; width: 100%;
  min-width: 0; border-style: solid; border-width: 1px; border-radius: 5px; resize: none; }
button { min-width: 28px; display: inline-flex; align-items: center; justify-content: center; gap: 5px; cursor: pointer;
  touch-action: manipulation; user-select: none; }
button svg { flex: none; width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.5;
  stroke-linecap: round; stroke-linejoin: round; }
button:hover:not(:disabled) { background: color-mix(in srgb, currentColor 16%, var(--comfy-input-bg, #222)); }
button:disabled, select:disabled, input:disabled, textarea:disabled { opacity: 0.38; cursor: default; }
button[aria-pressed=true], button[aria-pressed=true]:hover:not(:disabled) { background: ${COLOURS.accent};
  color: #06121f; }
:focus-visible { outline: 2px solid ${COLOURS.accent}; outline-offset: 1px; }
.body { display: flex; flex: 1 1 auto; gap: 6px; min-height: 0; }
.stage { position: relative; flex: 1 1 0; min-width: 0; min-height: 140px; overflow: hidden; border-radius: 6px;
  background: #101113; }
.stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; touch-action: none;
  border-radius: 6px; outline-offset: -2px; }
.side { display: flex; flex-direction: column; gap: 6px; flex: none; width: 222px; min-height: 0; }
.side:empty { display: none; }
.below { display: flex; flex-direction: column; gap: 6px; flex: none; }
.below:empty { display: none; }
.state { flex: none; min-height: 17px; padding: 0 2px; color: var(--descrip-text, #999); }
.state.problem { color: #ffb454; }
.list { flex: 1 1 60px; min-height: 54px; overflow-y: auto; margin: 0; padding: 3px; list-style: none;
  border-radius: 6px; background: var(--comfy-input-bg, #222); }
.list li { display: flex; }
.list button, .list input { width: 100%; justify-content: flex-start; text-align: left; overflow: hidden; }
.list .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.list .chip { flex: none; width: 10px; height: 10px; border-radius: 3px; }
.list button[aria-pressed=true], .list button[aria-pressed=true]:hover:not(:disabled) { color: inherit;
  background: color-mix(in srgb, ${COLOURS.accent} 30%, transparent); }
.list .hint { padding: 6px; color: var(--descrip-text, #999); white-space: normal; }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; flex: none; }
.fields label { display: flex; align-items: center; gap: 4px; color: var(--descrip-text, #999); }
.fields span { flex: none; min-width: 34px; }
.fields input { flex: 1 1 0; width: 0; color: var(--input-text, #ddd); appearance: textfield;
  padding: 0 4px; }
.list.chips { display: flex; flex-wrap: wrap; flex: none; gap: 3px; min-height: 34px; max-height: 62px; }
.list.chips li { flex: none; }
.fields.row { grid-template-columns: repeat(4, auto); }
.fields.row span { min-width: 0; }
.fields .wide { grid-column: 1 / -1; }
.fields select { flex: 1 1 0; color: var(--input-text, #ddd); }
.caption { display: flex; flex-direction: column; gap: 4px; flex: none; }
.caption > .bar > span { color: var(--descrip-text, #999); }
.caption .list { min-height: 0; }
.layers { display: grid; flex: none; align-items: start; }
.layers > * { grid-area: 1 / 1; }
.time { display: flex; flex-direction: column; gap: 5px; }
.time input[type=number] { width: 58px; }
.scale { position: relative; height: 20px; margin: 0 9px; touch-action: none; cursor: ew-resize; border-radius: 4px; }
.scale i { position: absolute; bottom: 0; width: 1px; height: 5px; background: var(--descrip-text, #999); }
.scale i.named { height: 8px; }
.scale b { position: absolute; top: -1px; transform: translateX(-50%); font-weight: 400; font-size: 10px;
  color: var(--descrip-text, #999); pointer-events: none; }
.track { position: relative; height: 30px; padding: 0 9px; border-radius: 6px; background: var(--comfy-input-bg, #222);
  touch-action: none; cursor: pointer; }
.track .lane { position: relative; height: 100%; }
.track svg.way { position: absolute; top: 7px; height: 16px; overflow: visible; pointer-events: none; fill: none;
  stroke: color-mix(in srgb, ${COLOURS.key} 65%, transparent); stroke-width: 1.5; }
.track svg.way path { vector-effect: non-scaling-stroke; }
.track .beyond { position: absolute; top: 0; bottom: 0; right: -9px; border-radius: 0 6px 6px 0; pointer-events: none;
  background: repeating-linear-gradient(135deg, #ffb45455 0 4px, transparent 4px 9px); }
.track .key { position: absolute; top: 50%; width: 14px; height: 14px; min-width: 0; padding: 0; border-radius: 3px;
  transform: translate(-50%, -50%) rotate(45deg); background: ${COLOURS.key}; border: 1.5px solid #1b1400;
  cursor: ew-resize; touch-action: none; }
.track .key::after { content: ""; position: absolute; inset: -8px; }
.track .key:hover:not(:disabled) { background: #ffd787; }
.track .key.here { background: #fff; }
.track .key.beyond-end { background: #ff7a59; }
.needle { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: ${COLOURS.accent};
  pointer-events: none; }
.scale .needle::before { content: ""; position: absolute; bottom: 0; left: -5px; border: 6px solid transparent;
  border-top: 8px solid ${COLOURS.accent}; border-bottom: 0; }
.place { position: absolute; inset: 0; display: none; align-items: center; justify-content: center; padding: 12px;
  text-align: center; color: var(--descrip-text, #999); font: 12px/1.35 Inter, system-ui, sans-serif; }
.place.shown { display: flex; }
@media (pointer: coarse) {
  button, select, input { height: 36px; min-width: 36px; font-size: 14px; }
  .scale { height: 28px; } .track { height: 42px; } .track svg.way { top: 13px; }
  .track .key { width: 18px; height: 18px; height: 18px; min-width: 0; }
  .track .key::after { inset: -12px; }
}
@container editor (max-width: 639px) {
  .body { flex-direction: column; }
  .side { width: auto; flex-direction: row; flex-wrap: wrap; max-height: 132px; }
  .side > * { flex: 1 1 150px; }
  .side > .bar { flex: 0 0 auto; }
  .stage { flex: 1 1 180px; }
  .body:has(.caption) { flex: 1 0 auto; }
  .side:has(.caption) { max-height: none; }
}
@container editor (max-width: 400px) {
  .panel { padding: 4px; gap: 4px; }
  .side { max-height: none; gap: 4px; }
  .side > .bar, .side > .list, .side > .fields { flex: 1 1 100%; }
  .side > .list { min-height: 36px; max-height: 80px; }
  .fields { grid-template-columns: repeat(4, 1fr); }
  .fields label { flex-direction: column; align-items: stretch; gap: 0; }
  .fields input { flex: none; width: 100%; }
  .time .bar, .time .group { flex-wrap: nowrap; gap: 2px; }
  .time .group { flex: none; }
  .time .total { display: none; }
  .time input[type=number] { width: 44px; }
  .time select { flex: 0 1 84px; }
}
@container editor (min-width: 2200px) { .panel { zoom: 1.5; } }
`;

const PATHS = {
  select: "M4 2l9 6.5-4.3.7L6.5 14z",
  points: "M4 4l8 1 1 7-9 1zM2.6 2.6h2.8v2.8H2.6zM10.6 3.6h2.8v2.8h-2.8zM11.6 10.6h2.8v2.8h-2.8z",
  polygon: "M3 11L5 3l7 1 2 6-6 4z",
  lasso: "M5 11.5C1 10 1.5 3 8 3s7.5 6 2 7.5-6-1.5-6.5.5 2 2 1.5 3.5",
  undo: "M6 3L2.5 6.5 6 10M3 6.5h6.5a3.5 3.5 0 010 7H7",
  redo: "M10 3l3.5 3.5L10 10M13 6.5H6.5a3.5 3.5 0 000 7H9",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  paste: "M4 3H2.5v11h11V3H12M5.5 1.8h5v3h-5zM5.5 9h5M5.5 11.5h3",
  twin: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3M9.5 7.5v4M7.5 9.5h4",
  remove: "M3 4.5h10M6 4.5V2.5h4v2M4.5 4.5l.7 9.5h5.6l.7-9.5",
  rename: "M3 13l.8-3.2L10.6 3l2.4 2.4-6.8 6.8zM9 4.6L11.4 7",
  raise: "M8 13V3M4 7l4-4 4 4",
  lower: "M8 3v10M4 9l4 4 4-4",
  onion: "M6 11a4 4 0 110-8 4 4 0 010 8zM10 13a4 4 0 000-8",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  closer: "M7 12A5 5 0 107 2a5 5 0 000 10zM10.6 10.6L14 14M7 5v4M5 7h4",
  farther: "M7 12A5 5 0 107 2a5 5 0 000 10zM10.6 10.6L14 14M5 7h4",
  large: "M9.5 2.5h4v4M13.5 2.5L9 7M6.5 13.5h-4v-4M2.5 13.5L7 9",
  help: "M6 6a2 2 0 113 1.7c-.7.4-1 .9-1 1.8M8 12v.1",
  play: "M5 3l8 5-8 5z",
  pause: "M5.5 3v10M10.5 3v10",
  previous: "M11 3L6 8l5 5M4 3v10",
  next: "M5 3l5 5-5 5M12 3v10",
  sun: "M8 5a3 3 0 100 6 3 3 0 000-6zM8 1.5V3M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1 1M11.6 11.6l1 1M12.6 3.4l-1 1M4.4 11.6l-1 1",
  lamp: "M6 11.5c0-1.5-2-2.3-2-5a4 4 0 118 0c0 2.7-2 3.5-2 5zM6.3 14h3.4",
  backdrop: "M2.5 3h11v10h-11zM2.5 11l3.5-4 3 3 2-2 2.5 3",
  pair: "M2 6a2 2 0 104 0 2 2 0 10-4 0M10 12a2 2 0 104 0 2 2 0 10-4 0M5.8 7.1l4.4 3.8M11.5 2v5M9 4.5h5",
  clear: "M2.5 4h7M2.5 8h5M2.5 12h4M9.5 8.5l4.5 4.5M14 8.5L9.5 13",
  lines: "M2 4a1.5 1.5 0 103 0 1.5 1.5 0 10-3 0M11 12a1.5 1.5 0 103 0 1.5 1.5 0 10-3 0M4.7 5l6.6 6M2 12h3M11 4h3",
  ellipse: "M14 8A6 4.2 0 112 8a6 4.2 0 0112 0z",
  top: "M8 14V6M4 9.5L8 5.5l4 4M3 2.5h10",
  there: "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM8 6a2 2 0 100 4 2 2 0 000-4z",
  words: "M2.5 3h11v7.5H8L5 13.5v-3H2.5zM5 6h6M5 8h3.5",
  key: "M8 2.5L13.5 8 8 13.5 2.5 8z",
};

export function icon(name) {
  return `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${PATHS[name]}"/></svg>`;
}

// An element with attributes, listeners (onclick: f) and children; `html` only ever comes from this pack's own sources.
export function make(tag, { html, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  if (html) element.innerHTML = html;
  element.append(...children);
  return element;
}
