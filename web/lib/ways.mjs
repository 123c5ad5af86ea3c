// How things travel from key to key, as kernels/schedule.py has it.

export const WAYS = ["linear", "ease", "ease-in", "ease-out", "hold"];

// A share of the way (0..1) bent as a key's `way` says.
export function travel(t, way) {
  if (way === "hold") return 0;
  if (way === "ease") return t * t * (3 - 2 * t);
  if (way === "ease-in") return t * t;
  if (way === "ease-out") return 1 - (1 - t) * (1 - t);
  return t;
}
