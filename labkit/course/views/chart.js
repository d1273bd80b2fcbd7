// What charts are drawn with; it stands between live.js and the view's own script.

const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "second", "third"]; // the classes of p50, p95 and p99

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const milliseconds = (value) => (value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);

// The powers of ten that hold every sample; three at least, so that a quiet experiment looks quiet.
function powers(phases) {
  const all = phases.flatMap((phase) => phase.latencies_msec).filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(1, ...all)));
  const high = Math.ceil(Math.log10(Math.max(1, ...all)));
  return [low, Math.max(high, low + 3)];
}

// A phase's name in at most two lines that fit its width.
function named(name, middle, width) {
  const most = Math.max(8, Math.floor(width / 6.8));
  const lines = [""];
  for (const word of name.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (longer.length <= most || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  if (lines.length > 2) lines.splice(1, lines.length, `${lines.slice(1).join(" ").slice(0, most - 1)}…`);
  const first = lines.length > 1 ? 14 : 28;
  return lines.map((line, index) => svg("text", { x: middle, y: first + 16 * index, "text-anchor": "middle" }, line));
}

// Labels that would lie on top of each other are pushed apart, from the lowest up.
function apart(labels, least) {
  const sorted = [...labels].sort((a, b) => b.y - a.y);
  sorted.forEach((label, index) => {
    if (index && sorted[index - 1].y - label.y < least) label.y = sorted[index - 1].y - least;
  });
  return labels;
}

// Requests as points, and those that were never answered as crosses: one path for all of either kind.
function points(samples, unanswered, x, y) {
  const lost = new Set(unanswered);
  const at = (index) => `M${x(index).toFixed(1)},${y(samples[index]).toFixed(1)}`;
  const all = samples.map((_, index) => index);
  const drawn = [svg("path", { class: "points", d: all.filter((index) => !lost.has(index)).map((index) => `${at(index)}h0`).join("") })];
  const crosses = all.filter((index) => lost.has(index)).map((index) => `${at(index)}m-3,-3l6,6m0,-6l-6,6`);
  if (crosses.length) drawn.push(svg("path", { class: "mark", d: crosses.join("") }));
  return drawn;
}

// A scale of powers of ten from `low` to `high`, drawn as lines across; returns what turns a value into its height.
function scale(root, [low, high], { left, right, top, bottom }) {
  const y = (value) => {
    const share = (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
    return bottom - share * (bottom - top);
  };
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power);
    root.append(svg("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    const label = power >= 3 ? `${10 ** (power - 3)} s` : `${10 ** power} ms`;
    root.append(svg("text", { class: "faint", x: left - 6, y: at + 4, "text-anchor": "end" }, label));
  }
  return y;
}
