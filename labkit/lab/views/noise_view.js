// The figure of the noisy-neighbour experiment: draws what labkit/lab/views/noise_view.py has put together.

const WIDTH = 960, HEIGHT = 330, LEFT = 58, RIGHT = 8, TOP = 44, BOTTOM = 22;
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "second", "third"];

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

function onePhase(phase, requests, x0, x1, y) {
  const parts = [];
  const x = (index) => x0 + 6 + ((x1 - x0 - 12) * (index + 0.5)) / requests;
  const answered = phase.latencies_msec.length - phase.unanswered;
  phase.latencies_msec.forEach((value, index) => {
    if (index < answered) parts.push(svg("circle", { class: "point", cx: x(index), cy: y(value), r: 2.2 }));
    else parts.push(svg("path", { class: "mark", d: `M${x(index) - 3},${y(value) - 3}l6,6m0,-6l-6,6` }));
  });
  const labels = phase.percentiles.map(([percent, value]) => ({ percent, value, y: y(value) - 4 }));
  phase.percentiles.forEach(([, value], index) =>
    parts.push(svg("line", { class: `line ${DASHES[index]}`, x1: x0 + 4, x2: x1 - 4, y1: y(value), y2: y(value) })),
  );
  for (const label of apart(labels, 14)) {
    const text = `p${label.percent} ${milliseconds(label.value)}`;
    parts.push(svg("text", { class: "halo", x: x1 - 6, y: label.y, "text-anchor": "end" }, text));
  }
  return parts;
}

function chart(state) {
  const [low, high] = powers(state.phases);
  const y = (value) => {
    const share = (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
  };
  const wide = (WIDTH - LEFT - RIGHT) / state.phases.length;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  root.setAttribute("aria-label", "Each request's latency, phase by phase; the table below has the percentiles");
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power);
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    const label = power >= 3 ? `${10 ** (power - 3)} s` : `${10 ** power} ms`;
    root.append(svg("text", { class: "faint", x: LEFT - 6, y: at + 4, "text-anchor": "end" }, label));
  }
  state.phases.forEach((phase, index) => {
    const x0 = LEFT + index * wide;
    root.append(svg("line", { class: "edge", x1: x0, x2: x0, y1: 6, y2: HEIGHT - BOTTOM }));
    root.append(...named(phase.name, x0 + wide / 2, wide - 8), ...onePhase(phase, state.requests, x0, x0 + wide, y));
  });
  const axis = `${state.requests} requests in each phase, one every ${state.interval_msec} ms →`;
  root.append(svg("text", { class: "faint", x: LEFT, y: HEIGHT - 5 }, axis));
  return root;
}

function figures(state) {
  const percents = state.phases.find((phase) => phase.percentiles.length)?.percentiles.map(([percent]) => percent) ?? [];
  const unanswered = state.phases.some((phase) => phase.unanswered);
  const cell = (text) => make("td", "number", text);
  const rows = state.phases.map((phase) => {
    const one = make("tr", "", make("td", "", phase.name));
    percents.forEach((_, index) => one.append(cell(phase.percentiles[index] ? milliseconds(phase.percentiles[index][1]) : "…")));
    if (unanswered) one.append(cell(phase.unanswered ? `× ${phase.unanswered} of ${state.requests}` : "none"));
    return one;
  });
  const headings = [...percents.map((percent) => `${percent} % within`), ...(unanswered ? ["never answered"] : [])];
  const head = make("tr", "", make("th", "", ""), ...headings.map((text) => make("th", "number", text)));
  return make("table", "", make("thead", "", head), make("tbody", "", ...rows));
}

function draw(state) {
  const note =
    "Each point is a request: how long it had to wait for its answer, from when it was due. Lines: half of the requests " +
    "(p50, solid), 95 of 100 (p95, dashed) and 99 of 100 (p99, dotted) were answered below.";
  return frame({ ...state, ended_note: "" }, "", chart(state), figures(state), make("p", "note", note));
}

export default live(draw);
