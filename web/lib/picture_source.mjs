// The picture that an editor lies over: what is connected to an input of its node, as far as the page can know it.

const BYPASSED = 4,
  MUTED = 2;
const LOADERS = ["LoadImage", "LoadImageOutput"];
const MOST_STEPS = 50;

// The path of /view for an entry {filename, subfolder, type}. Where a file may be transparent its colours alone are
// asked for, because that is what Load Image hands on.
export function viewPath({ filename, subfolder = "", type = "input" }) {
  const query = new URLSearchParams({ filename, subfolder, type });
  if (/\.(png|webp)$/i.test(filename)) query.set("channel", "rgb");
  return `/view?${query}`;
}

// "folder/name.png [output]", as a loader's widget has it -> {filename, subfolder, type}.
export function widgetEntry(value, type = "input") {
  const [, path, named = type] = /^(.*?)(?: \[(input|output|temp)\])?$/s.exec(value);
  const cut = path.lastIndexOf("/");
  return { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type: named };
}

// The node that an input comes from, through reroutes; null where nothing is connected.
export function connectedNode(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  let origin = slot < 0 ? null : node.getInputNode?.(slot);
  for (let steps = 0; origin?.type === "Reroute" && steps < MOST_STEPS; steps++) origin = origin.getInputNode(0);
  return origin ?? null;
}

// {connected, path}: whether something is connected, and the /view path of its picture or null. `shown` is the entry
// {filename, subfolder, type} of the node's own last run, used where the picture comes from anything but a loader.
export function pictureSource(node, name, shown) {
  const origin = connectedNode(node, name);
  if (!origin || origin.mode === MUTED) return { connected: false, path: null };
  if (LOADERS.includes(origin.comfyClass ?? origin.type) && origin.mode !== BYPASSED) {
    const widget = origin.widgets?.find((each) => each.name === "image");
    if (typeof widget?.value === "string" && widget.value) {
      const folder = origin.comfyClass === "LoadImageOutput" ? "output" : "input";
      return { connected: true, path: viewPath(widgetEntry(widget.value, folder)) };
    }
  }
  return { connected: true, path: shown ? viewPath(shown) : null };
}
