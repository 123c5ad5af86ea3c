// What the Match Points editor draws over its pictures, and the handles on it. `hands` is its MatchPointsHands.

import { stroke, trace } from "./drawing.mjs";
import { COLOURS } from "./editor_style.mjs";
import { isWhole, pairColour, SIDES } from "./match_points.mjs";

const START_PIXELS = 3; // a drag begins after this many CSS pixels
const RING = 7;
const TAG = { height: 15, padding: 4, away: 6 };
const FONT = "11px Inter, system-ui, sans-serif";
const TITLE_FONT = "600 11px Inter, system-ui, sans-serif";

// Handles of all points that are seen, those of the selected pair on top.
export function matchHandles(hands) {
  const order = hands.points.map((_, index) => index).filter((index) => index !== hands.selected);
  if (hands.current) order.push(hands.selected);
  return order.flatMap((index) =>
    SIDES.flatMap((side) => {
      const pane = hands.paneOf(side),
        point = hands.points[index][side];
      if (!point) return [];
      const at = pane.view.toCanvas(point);
      return pane.view.contains(at) ? [handle(hands, pane, index, side, at)] : [];
    }),
  );
}

function handle(hands, pane, index, side, at) {
  let first = null;
  return {
    at, pane, index, side,
    shape: side,
    radius: 3,
    cursor: "move",
    drag: (spot, event, start) => {
      const far = Math.hypot(spot.place[0] - start.place[0], spot.place[1] - start.place[1]);
      if (!first && far < START_PIXELS) return;
      if (!first) {
        hands.choose(index, side);
        first = hands.points[index][side];
      }
      const { width, height } = pane.view.frame;
      let across = spot.point[0] - start.point[0],
        down = spot.point[1] - start.point[1];
      if (event.shiftKey) Math.abs(across) * width > Math.abs(down) * height ? (down = 0) : (across = 0);
      hands.change(index, side, [first[0] + across, first[1] + down]);
    },
    end: () => {
      hands.choose(index, side);
      if (first) hands.editor.commit();
    },
  };
}

export function drawMatches(context, hands) {
  const seen = new Map(matchHandles(hands).map((each) => [`${each.index} ${each.side}`, each]));
  drawGap(context, hands);
  for (const index of order(hands)) {
    const [from, to] = SIDES.map((side) => seen.get(`${index} ${side}`)),
      strong = index === hands.selected || index === hands.hovered;
    if (!from || !to || !(strong || hands.lines)) continue;
    trace(context, [from.at, to.at], false);
    context.globalAlpha = strong ? 1 : 0.55;
    stroke(context, pairColour(index), strong ? 2 : 1);
    context.globalAlpha = 1;
  }
  for (const side of SIDES) {
    const { area } = hands.paneOf(side).view;
    context.save();
    context.beginPath();
    context.rect(area.x, area.y, area.width, area.height);
    context.clip();
    for (const index of order(hands)) {
      const marker = seen.get(`${index} ${side}`);
      if (marker) drawMarker(context, hands, marker, area);
    }
    drawTitle(context, hands, side, area);
    context.restore();
  }
}

// The selected pair last, on top.
function order(hands) {
  const indices = hands.points.map((_, index) => index);
  return hands.current ? [...indices.toSpliced(hands.selected, 1), hands.selected] : indices;
}

function drawGap(context, hands) {
  const { area } = hands.paneOf("target").view;
  context.fillStyle = "#4a4f58";
  if (area.x) context.fillRect(Math.round(area.x), 0, 1, area.height);
  else context.fillRect(0, Math.round(area.y), area.width, 1);
}

function drawMarker(context, hands, { at: [x, y], index, side }, area) {
  const colour = pairColour(index),
    chosen = index === hands.selected;
  context.beginPath();
  context.arc(x, y, RING, 0, 2 * Math.PI);
  if (chosen && side === hands.chosenSide) {
    context.fillStyle = "rgba(255, 255, 255, 0.3)";
    context.fill();
  }
  stroke(context, chosen || index === hands.hovered ? COLOURS.line : colour, chosen ? 2.5 : 2);
  context.fillStyle = COLOURS.shade;
  context.fillRect(x - 2, y - 2, 4, 4);
  context.fillStyle = colour;
  context.fillRect(x - 1.25, y - 1.25, 2.5, 2.5);
  context.font = FONT;
  const text = isWhole(hands.points[index]) ? String(index + 1) : `${index + 1} ?`,
    width = context.measureText(text).width + 2 * TAG.padding;
  const left = x + TAG.away + width > area.x + area.width ? x - TAG.away - width : x + TAG.away,
    top = y - TAG.away - TAG.height < area.y ? y + TAG.away : y - TAG.away - TAG.height;
  context.beginPath();
  context.roundRect(left, top, width, TAG.height, 4);
  stroke(context, chosen ? COLOURS.line : colour, 1.5);
  context.fillStyle = colour;
  context.fill();
  context.fillStyle = "#101113";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, left + width / 2, top + TAG.height / 2 + 0.5);
}

// The picture's name, and a frame round the one in which a place is wanted.
function drawTitle(context, hands, side, area) {
  const wanted = hands.wanted === side,
    words = side === "reference" ? "Reference" : "Target";
  if (wanted) {
    context.beginPath();
    context.rect(area.x + 2, area.y + 2, area.width - 4, area.height - 4);
    context.strokeStyle = COLOURS.accent;
    context.lineWidth = 2;
    context.stroke();
  }
  context.font = TITLE_FONT;
  const width = context.measureText(words).width + 12;
  context.beginPath();
  context.roundRect(area.x + 6, area.y + 6, width, 19, 5);
  context.fillStyle = wanted ? COLOURS.accent : COLOURS.shade;
  context.fill();
  context.fillStyle = wanted ? "#06121f" : "#e6e9ee";
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(words, area.x + 12, area.y + 16);
}
