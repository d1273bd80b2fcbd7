// The figure of the noisy-neighbour experiment: draws what labkit/course/experiments/noise/figure.py has put together.

const WIDTH = 960, HEIGHT = 350, LEFT = 58, RIGHT = 8, TOP = 64, BOTTOM = 22;
function onePhase(phase, requests, x0, x1, y) {
  const parts = [];
  const x = (index) => x0 + 6 + ((x1 - x0 - 12) * (index + 0.5)) / requests;
  const lost = new Set(phase.unanswered);
  phase.latencies_msec.forEach((value, index) => {
    if (!lost.has(index)) parts.push(svg("circle", { class: "point", cx: x(index), cy: y(value), r: 2.2 }));
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
  const wide = (WIDTH - LEFT - RIGHT) / state.phases.length;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  root.setAttribute("aria-label", "Each request's latency, phase by phase; the table below has the percentiles");
  const y = scale(root, powers(state.phases), { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM });
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
  const unanswered = state.phases.some((phase) => phase.unanswered.length);
  const cell = (text) => make("td", "number", text);
  const rows = state.phases.map((phase) => {
    const one = make("tr", "", make("td", "", phase.name));
    percents.forEach((_, index) => one.append(cell(phase.percentiles[index] ? milliseconds(phase.percentiles[index][1]) : "…")));
    if (unanswered) one.append(cell(phase.unanswered.length ? `× ${phase.unanswered.length} of ${state.requests}` : "none"));
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
  return frame({ ...state, ended_note: "" }, "", chart(state), figures(state), make("p", "note", note), make("p", "note", `Measured on: ${state.machine}.`));
}

export default live(draw);
