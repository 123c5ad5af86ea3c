// Outlines drawn by hand: lists of points [x, y] in whatever unit the caller uses.

// Whether a point lies inside, by the non-zero winding rule.
export function isInside(polygon, [x, y]) {
  let winding = 0;
  polygon.forEach(([px, py], index) => {
    const [qx, qy] = polygon[(index + 1) % polygon.length];
    if (Math.min(py, qy) <= y && y < Math.max(py, qy) && x >= px + ((y - py) * (qx - px)) / (qy - py))
      winding += qy > py ? 1 : -1;
  });
  return winding !== 0;
}

export function area(polygon) {
  let twice = 0;
  polygon.forEach(([px, py], index) => {
    const [qx, qy] = polygon[(index + 1) % polygon.length];
    twice += px * qy - qx * py;
  });
  return Math.abs(twice) / 2;
}

// The nearest place on the outline: {index of the edge's first point, at: [x, y], far: distance}.
export function nearestEdge(polygon, [x, y]) {
  let best = { index: -1, at: [x, y], far: Infinity };
  polygon.forEach(([px, py], index) => {
    const [qx, qy] = polygon[(index + 1) % polygon.length];
    const dx = qx - px,
      dy = qy - py,
      length = dx * dx + dy * dy;
    const t = length ? Math.min(Math.max(((x - px) * dx + (y - py) * dy) / length, 0), 1) : 0;
    const at = [px + t * dx, py + t * dy],
      far = Math.hypot(at[0] - x, at[1] - y);
    if (far < best.far) best = { index, at, far };
  });
  return best;
}

// Fewer points: those closer than `tolerance` to the line between the kept ones go (Ramer, Douglas, Peucker).
// First and last point stay. The tolerance grows until at most `most` points are left.
export function simplify(points, tolerance, most = Infinity) {
  for (let allowed = tolerance; ; allowed = allowed * 1.5 || 1e-9) {
    const kept = thin(points, allowed);
    if (kept.length <= most || kept.length <= 2) return kept;
  }
}

function thin(points, tolerance) {
  if (points.length < 3) return [...points];
  const keep = new Set([0, points.length - 1]),
    waiting = [[0, points.length - 1]];
  while (waiting.length) {
    const [first, last] = waiting.pop();
    let farthest = -1,
      most = tolerance;
    for (let index = first + 1; index < last; index++) {
      const { far } = nearestEdge([points[first], points[last]], points[index]);
      if (far > most) [farthest, most] = [index, far];
    }
    if (farthest < 0) continue;
    keep.add(farthest);
    waiting.push([first, farthest], [farthest, last]);
  }
  return points.filter((_, index) => keep.has(index));
}
