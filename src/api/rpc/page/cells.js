// --- The cells of the map on a canvas: Palette, drawSwatch, drawCells, layout ------------------------------------------------
//
// A cell of one address has the colour of its use and a mark of its own, so that no use is told by colour alone. A cell
// of many is filled from the bottom with the share of each use; one with a conflict has the cross of a conflict.

/** From the bottom of a cell to its top; what is left is free. */
const STACK = ["conflict", "vm", "reserved", "retained", "foreign", "service", "first", "resting", "excluded", "unusable"];
/** Uses that are drawn on the ground of free addresses: the address has no holder. */
const OUTLINED = new Set(["reserved", "retained", "excluded", "resting"]);

/** The colours of the style sheet, read again after a change of theme. */
class Palette {
  constructor(element) {
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.use = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, colour(`--use-${kind}`)]));
    this.mark = colour("--mark");
    this.ink = colour("--ink");
    this.soft = colour("--soft");
    this.found = colour("--found");
    this.card = colour("--card");
  }
}

/** A square of one use, with its mark. */
function drawUse(context, palette, kind, x, y, width, height) {
  const colour = palette.use[kind];
  context.fillStyle = OUTLINED.has(kind) ? palette.use.free : colour;
  context.fillRect(x, y, width, height);
  const line = Math.max(1.5, Math.min(width, height) / 7);
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.lineWidth = line;
  context.strokeStyle = OUTLINED.has(kind) ? colour : palette.mark;
  context.fillStyle = context.strokeStyle;
  MARKS[kind]?.(context, x, y, width, height, line);
  context.restore();
}

function strokes(context, ...lines) {
  context.beginPath();
  for (const [x1, y1, x2, y2] of lines) {
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
  }
  context.stroke();
}

const MARKS = {
  reserved(context, x, y, w, h) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x, y + h);
    context.lineTo(x + w, y + h);
    context.fill();
  },
  retained(context, x, y, w, h, line) {
    context.lineWidth = 2 * line;
    context.strokeRect(x + line, y + line, w - 2 * line, h - 2 * line);
  },
  foreign: (context, x, y, w, h) => strokes(context, [x, y + h, x + w, y]),
  service(context, x, y, w, h) {
    context.beginPath();
    context.arc(x + w / 2, y + h / 2, Math.min(w, h) / 5, 0, 2 * Math.PI);
    context.fill();
  },
  conflict: (context, x, y, w, h) => strokes(context, [x, y, x + w, y + h], [x, y + h, x + w, y]),
  excluded(context, x, y, w, h) {
    const third = (w + h) / 3;
    strokes(context, ...[1, 2].map((n) => [x + n * third, y, x + n * third - h, y + h]));
  },
  first: (context, x, y, w, h) => strokes(context, [x + w / 2, y + h / 5, x + w / 2, y + (4 * h) / 5]),
  resting(context, x, y, w, h) {
    context.beginPath();
    context.arc(x + w / 2, y + h / 2, Math.min(w, h) / 3, 0, 2 * Math.PI);
    context.fill();
  },
  unusable: (context, x, y, w, h) => strokes(context, [x + w / 5, y + h / 2, x + (4 * w) / 5, y + h / 2]),
};

/** Many addresses in one cell. `counts` has the number of each use. */
function drawShares(context, palette, counts, total, x, y, width, height) {
  context.fillStyle = palette.use.free;
  context.fillRect(x, y, width, height);
  let bottom = y + height;
  for (const kind of STACK) {
    const count = counts[kind] ?? 0;
    if (count === 0) continue;
    // One address of thousands is seen, too.
    const share = Math.min(Math.max((count / total) * height, Math.min(2, height / 4)), bottom - y);
    context.fillStyle = palette.use[kind];
    context.fillRect(x, bottom - share, width, share);
    bottom -= share;
  }
  if (counts.conflict > 0) drawUse(context, palette, "conflict", x + width / 4, y + height / 4, width / 2, height / 2);
}

/** The square of the legend. */
function drawSwatch(canvas, palette, kind) {
  const ratio = devicePixelRatio || 1;
  canvas.width = 14 * ratio;
  canvas.height = 14 * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  drawUse(context, palette, kind, 0, 0, 14, 14);
}

/** The most cells that a width has room for: a finger finds a cell of 20 pixels. */
function budget(width) {
  if (width < 480) return 256;
  return width < 1_200 ? 1_024 : 2_048;
}

/** Columns and sizes, in CSS pixels. Before a row stands the address of its first cell, where there is room for it. */
function layout(width, count, longestLabel) {
  const left = width >= 480 ? Math.ceil(longestLabel) + 10 : 0;
  const room = Math.max(64, width - left);
  const smallest = width < 480 ? 18 : 12;
  let columns = 1;
  while (columns * 2 * smallest <= room && columns < count) columns *= 2;
  // Few cells may be larger, so that they are a map and not a line.
  while (columns > 8 && count / columns < 6 && room / (columns / 2) <= 30) columns /= 2;
  const pitch = Math.min(room / columns, 34);
  const rows = Math.ceil(count / columns);
  // Many rows are lower, so that the map and the words below it are seen together.
  const height = Math.min(pitch, Math.max(13, 420 / rows, (0.45 * innerHeight) / rows));
  return { left, columns, rows, pitch, height };
}

/** Draws a map. `scene` has cells `{ counts, total }`, and what is to be seen of them. */
function drawCells(canvas, palette, { cells, place, labels, font, cursor, alone, marks, changed }) {
  const ratio = devicePixelRatio || 1;
  const { left, columns, rows, pitch, height } = place;
  const whole = Math.ceil(rows * height);
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(whole * ratio);
  canvas.style.height = `${whole}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const gap = pitch >= 16 ? 2 : 1;
  const at = (index) => [left + (index % columns) * pitch, Math.floor(index / columns) * height];
  const [wide, high] = [pitch - gap, height - gap];
  cells.forEach(({ counts, total }, index) => {
    const [x, y] = at(index);
    if (alone !== null && (counts[alone] ?? 0) === 0) {
      context.fillStyle = palette.use.free;
      context.globalAlpha = 0.35;
      context.fillRect(x, y, wide, high);
      context.globalAlpha = 1;
    } else if (total === 1n) {
      drawUse(context, palette, Object.keys(counts)[0] ?? "free", x, y, wide, high);
    } else {
      drawShares(context, palette, alone === null ? counts : { [alone]: counts[alone] }, Number(total), x, y, wide, high);
    }
  });
  const frame = (index, colour, line, beyond) => {
    const [x, y] = at(index);
    context.lineWidth = line;
    context.strokeStyle = colour;
    context.strokeRect(x - beyond, y - beyond, wide + 2 * beyond, high + 2 * beyond);
  };
  for (const index of changed) frame(index, palette.ink, 1, 0.5);
  for (const index of marks) {
    frame(index, palette.ink, 4, 0);
    frame(index, palette.found, 2, 0);
  }
  if (cursor !== null) {
    frame(cursor, palette.card, 5, -0.5);
    frame(cursor, palette.ink, 3, -0.5);
  }
  context.font = font;
  drawLabels(context, palette, labels, place);
}

function drawLabels(context, palette, labels, { left, height }) {
  if (left === 0) return;
  context.fillStyle = palette.soft;
  context.textAlign = "right";
  context.textBaseline = "middle";
  const each = Math.ceil(13 / height);
  labels.forEach((label, row) => row % each === 0 && context.fillText(label, left - 8, (row + 0.5) * height));
}
