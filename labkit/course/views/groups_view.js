// The live view of control groups: draws what labkit/course/views/groups_view.py has found.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 170, HIGH = 44, FOOT = 7;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KiB`;
  return bytes < 1 << 30 ? `${(bytes / (1 << 20)).toFixed(bytes < 10 << 20 ? 1 : 0)} MiB` : `${(bytes / (1 << 30)).toFixed(1)} GiB`;
}

// One minute of one figure, as an area with a line on top; a dashed line is the limit; marks below are stopped periods.
function minute(points, seconds, value, limit, stopped, label) {
  const most = Math.max(limit ?? 0, ...points.map(value), 1e-9) * 1.12;
  const x = (at) => WIDE - 2 + (at / seconds) * (WIDE - 2);
  const y = (amount) => HIGH - FOOT - (amount / most) * (HIGH - FOOT - 3);
  const root = svg("svg", { class: "minute", viewBox: `0 0 ${WIDE} ${HIGH}`, width: WIDE, height: HIGH, role: "img" });
  root.setAttribute("aria-label", label);
  root.append(svg("line", { class: "edge", x1: 0, x2: WIDE, y1: HIGH - FOOT, y2: HIGH - FOOT }));
  if (points.length > 1) {
    const path = points.map((point) => `${x(point[0]).toFixed(1)},${y(value(point)).toFixed(1)}`).join("L");
    const base = (HIGH - FOOT).toFixed(1);
    root.append(svg("path", { class: "area", d: `M${x(points[0][0]).toFixed(1)},${base}L${path}L${x(points.at(-1)[0]).toFixed(1)},${base}Z` }));
    root.append(svg("path", { class: "top", d: `M${path}` }));
  }
  if (limit !== null && limit !== undefined) {
    root.append(svg("line", { class: "limit", x1: 0, x2: WIDE, y1: y(limit), y2: y(limit) }));
  }
  for (const point of stopped ? points : []) {
    if (point[2] > 0) root.append(svg("rect", { class: "stopped", x: x(point[0]) - 2, y: HIGH - 5, width: 3, height: 5 * Math.max(0.3, point[2] / 100) }));
  }
  return root;
}

function bar(share, label) {
  const inner = make("span", "fill");
  inner.style.width = `${Math.min(100, Math.round(share * 100))}%`;
  const outer = make("span", "bar", inner);
  outer.setAttribute("role", "img");
  outer.setAttribute("aria-label", label);
  return outer;
}

function named(group) {
  const depth = group.path ? group.path.split("/").length : 0;
  const name = make("span", "", "\u00a0\u00a0\u00a0".repeat(Math.max(0, depth - 1)), depth ? "└ " : "", code(group.path.split("/").at(-1) || "lab host"));
  const words = [];
  if (group.gone) words.push("removed");
  if (group.frozen && !group.gone) words.push("❄ frozen");
  return make("div", "", name, ...words.map((word) => make("div", "word", word)));
}

function processor(group, seconds) {
  const limit = group.cpu_limit_percent;
  const now = group.cpu_percent === null ? `used ${(group.cpu_used_msec / 1000).toFixed(1)} s` : `${Math.round(group.cpu_percent)} %`;
  const text = make("div", "", make("b", "", now), limit === null ? "" : ` of ${limit} % allowed`);
  const parts = [text];
  if (limit !== null) {
    const now = group.throttled_percent === null ? "" : `, now ${group.throttled_percent} % of them`;
    parts.push(make("div", "note", `stopped in ${group.throttled_periods} periods${now}`));
  }
  return [make("div", "", ...parts), minute(group.points, seconds, (point) => point[1], limit, limit !== null, "CPU in the last minute")];
}

function memory(group, seconds) {
  const limit = group.memory_limit_bytes;
  const text = make("div", "", make("b", "", size(group.memory_bytes)), limit === null ? "" : ` of ${size(limit)} allowed`);
  const parts = [text];
  if (limit !== null) parts.push(bar((group.memory_bytes ?? 0) / limit, "memory in use, of the limit"));
  if (group.memory_peak_bytes !== null) parts.push(make("div", "note", `most so far: ${size(group.memory_peak_bytes)}`));
  if (group.oom_kills) parts.push(make("div", "word", `☠ killed for memory: ${group.oom_kills}`));
  return [make("div", "", ...parts), minute(group.points, seconds, (point) => point[3], limit, false, "memory in the last minute")];
}

function tasks(group) {
  const parts = [make("b", "", String(group.processes)), group.pids_limit === null ? "" : ` of ${group.pids_limit}`];
  if (group.pids_refused) parts.push(make("div", "word", `forks refused: ${group.pids_refused}`));
  return make("div", "", ...parts);
}

function draw(state, before) {
  if (!state.groups) return frame(state, "The lab host had ended before it could be looked at.");
  const old = new Set((before?.groups ?? []).map((group) => group.path));
  const rows = state.groups.map((group) => {
    const marks = [before && !old.has(group.path) ? "changed" : "", group.gone ? "gone" : ""].join(" ").trim();
    return row(marks, named(group), ...processor(group, state.seconds), ...memory(group, state.seconds), tasks(group));
  });
  const headings = ["group", "CPU", "last minute", "memory", "last minute", "processes"];
  const note = "A dashed line is the limit; marks below a graph: the group was stopped (throttled) then. Figures are of a group with all below it.";
  const found = table(headings, rows);
  found.classList.add("groups");
  return frame(state, "", found, make("p", "note", note));
}

export default live(draw);
