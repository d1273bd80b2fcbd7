// Several servers beside the same neighbours: draws what labkit/course/experiments/noise/servers_figure.py has put together.

const WIDTH = 960, HEIGHT = 340, LEFT = 50, RIGHT = 4, TOP = 40, BOTTOM = 40, GAP = 14;
// The marks of places, told apart by their shape; each is drawn around the point 0,0.
const SHAPES = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-4,-4h8v8h-8z", "M0,-5l5,9h-10z", "M0,-6l5,6l-5,6l-5,-6z"];

const shape = (number, x, y) =>
  svg("path", { class: `place place-${number % SHAPES.length}`, d: SHAPES[number % SHAPES.length], transform: `translate(${x},${y})` });

// One place: every request as a point, in the order in which they were due, and the percentiles as lines.
function requests(cell, x0, x1, y, total) {
  const x = (index) => x0 + 3 + ((x1 - x0 - 6) * (index + 0.5)) / total;
  const lines = cell.percentiles.map(([, value], index) =>
    svg("line", { class: `line ${DASHES[index]}`, x1: x0 + 2, x2: x1 - 2, y1: y(value), y2: y(value) }),
  );
  return [...points(cell.latencies_msec, cell.unanswered, x, y), ...lines];
}

// Several places beside each other: for each a mark at its median, and a line from there up to its p99.
function ranges(cells, x0, x1, y) {
  return cells.flatMap((cell, number) => {
    if (!cell.percentiles.length) return [];
    const x = x0 + ((x1 - x0) * (number + 0.5)) / cells.length;
    const [low, high] = [y(cell.percentiles[0][1]), y(cell.percentiles.at(-1)[1])];
    const parts = [
      svg("line", { class: "range", x1: x, x2: x, y1: low, y2: high }),
      svg("line", { class: "range", x1: x - 4, x2: x + 4, y1: high, y2: high }),
      shape(number, x, low),
    ];
    if (cell.unanswered_count) parts.push(svg("path", { class: "mark", d: `M${x - 4},${high - 14}l8,8m0,-8l-8,8` }));
    return parts;
  });
}

function chart(state) {
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  root.setAttribute("aria-label", "The latencies of each server, phase by phase; the table below has the percentiles");
  const values = state.places.flatMap((place) => place.cells.flat()).flatMap((cell) => [...cell.latencies_msec, ...cell.percentiles.map(([, value]) => value)]);
  const y = scale(root, powers([{ latencies_msec: values }]), { left: LEFT, right: WIDTH - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM });
  const wide = (WIDTH - LEFT - RIGHT + GAP) / state.servers.length - GAP;
  state.servers.forEach((server, row) => {
    const left = LEFT + row * (wide + GAP);
    const column = wide / state.phases.length;
    root.append(svg("text", { class: "title", x: left + wide / 2, y: 26, "text-anchor": "middle" }, server));
    state.phases.forEach((phase, index) => {
      const [x0, x1] = [left + index * column, left + (index + 1) * column];
      root.append(svg("line", { class: index ? "grid" : "edge", x1: x0, x2: x0, y1: TOP - 6, y2: HEIGHT - BOTTOM }));
      const cells = state.places.map((place) => place.cells[row][index]);
      root.append(...(cells.length > 1 ? ranges(cells, x0, x1, y) : requests(cells[0], x0, x1, y, state.requests)));
      const label = svg("g", { transform: `translate(0,${HEIGHT - BOTTOM})` }, ...named(phase, (x0 + x1) / 2, column));
      label.setAttribute("class", "faint");
      root.append(label);
    });
  });
  return root;
}

function legend(state) {
  const entries = state.places.map((place, number) => {
    const mark = svg("svg", { class: "chart key", viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, shape(number, 0, 0));
    return make("li", "", ...(state.places.length > 1 ? [mark, make("b", "", place.name), ": "] : ["Measured on: "]), place.machine);
  });
  return make("ul", "places", ...entries);
}

function figures(state) {
  const several = state.places.length > 1;
  const head = make("tr", "", make("th", "", "server"), ...(several ? [make("th", "", "where")] : []), ...state.phases.map((phase) => make("th", "number", phase)));
  const rows = state.servers.flatMap((server, row) =>
    state.places.map((place, number) => {
      const one = make("tr", "", make("td", "", number ? "" : server), ...(several ? [make("td", "", place.name)] : []));
      for (const cell of place.cells[row]) {
        const [first, last] = [cell.percentiles[0], cell.percentiles.at(-1)];
        const lost = cell.unanswered_count ? `, × ${cell.unanswered_count}` : "";
        one.append(make("td", "number", first ? `${milliseconds(first[1])} · ${milliseconds(last[1])}${lost}` : "…"));
      }
      return one;
    }),
  );
  return make("table", "", make("thead", "", head), make("tbody", "", ...rows));
}

function draw(state) {
  const what = state.places.length > 1
    ? "Each mark stands at the latency within which half of the requests were answered (p50); the line goes up from there to that of 99 of 100 (p99)."
    : "Each point is a request: how long it had to wait for its answer, from when it was due. Lines: half of the requests (p50, solid), 95 of 100 (p95, dashed) and 99 of 100 (p99, dotted) were answered below.";
  const how = `${state.requests} requests to each server in each phase, one every ${state.interval_msec} ms. The table: p50 · p99${
    state.places.some((place) => place.cells.flat().some((cell) => cell.unanswered_count)) ? ", × requests that were never answered" : ""
  }.`;
  return frame({ ...state, ended_note: "" }, "", chart(state), figures(state), make("p", "note", `${what} ${how}`), legend(state));
}

export default live(draw);
