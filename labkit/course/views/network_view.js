// The live view "the network as a picture": draws what labkit/course/views/network_view.py has put together.
//
//   this machine   (published ports)
//   lab host       bridges with their ports, other ends of pairs
//   namespaces     one box each, in a row: their ends of pairs, addresses, routes

const SVG = "http://www.w3.org/2000/svg";
const LEAST = 176, MOST = 250, GAP = 18, MARGIN = 14, LINE = 16, PLUG = 8;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const text = (x, y, content, kind = "", anchor = "start") => svg("text", { x, y, class: kind, "text-anchor": anchor }, content);

// A text that fits `width`; the whole of it is the tooltip.
function fitted(x, y, content, width, kind = "") {
  const most = Math.floor(width / 6.9);
  const element = text(x, y, content.length > most ? `${content.slice(0, most - 1)}…` : content, kind);
  element.append(svg("title", {}, content));
  return element;
}

const isUp = (link) => link.up && link.carrier;
const word = (link) => (!link.up ? "down" : link.kind === "veth" && !link.carrier ? "other end down" : "up");

// The lab host's links sorted into bridges with their ports, and the rest; and a column for each namespace and each
// bridge that has none.
function plan(state) {
  const [host, ...spaces] = state.namespaces;
  const byId = new Map(state.namespaces.map((space) => [space.id, space]));
  const bridges = host.links.filter((link) => link.kind === "bridge").map((bridge) => ({ bridge, columns: [] }));
  const order = [];
  const placed = new Set();
  const place = (space) => {
    if (!placed.has(space.id)) {
      placed.add(space.id);
      order.push({ space });
    }
    return order.findIndex((one) => one.space === space);
  };
  for (const entry of bridges) {
    const ports = host.links.filter((link) => link.master === entry.bridge.name);
    for (const port of ports) {
      const peer = port.peer && port.peer.id !== host.id ? byId.get(port.peer.id) : null;
      if (peer) entry.columns.push(place(peer));
    }
    entry.loose = ports.filter((port) => !port.peer || port.peer.id === host.id);
    if (!entry.columns.length || entry.loose.length) {
      order.push({ space: null });
      entry.columns.push(order.length - 1);
    }
  }
  const joined = new Set(host.links.filter((link) => link.peer).map((link) => link.peer.id));
  for (const space of [...spaces].sort((a, b) => joined.has(b.id) - joined.has(a.id))) place(space);
  return { host, bridges, order };
}

function lines(space) {
  const found = [];
  for (const link of space.links.filter((one) => one.kind !== "loopback" || !one.up)) {
    found.push({ content: `${link.name}  ${word(link)}`, kind: isUp(link) ? "code" : "code down", mark: isUp(link) ? "●" : "✕" });
    for (const address of link.addresses) {
      const twice = link.duplicates.includes(address);
      found.push({ content: twice ? `⚠ ${address} twice` : address, kind: twice ? "code trouble" : "code", indent: true });
    }
    if (!link.addresses.length && link.kind === "veth") found.push({ content: "no address", kind: "faint", indent: true });
  }
  found.push(...(space.routes.length ? space.routes.map((route) => ({ content: `→ ${route}`, kind: "code faint" })) : [{ content: "no routes", kind: "faint" }]));
  return found;
}

// The end of a pair: filled where it is up, crossed out where it is not.
function plug(x, y, link) {
  const up = link ? isUp(link) : false;
  const parts = [svg("rect", { class: `plug ${up ? "" : "down"}`, x: x - PLUG / 2, y: y - PLUG / 2, width: PLUG, height: PLUG })];
  if (!up) parts.push(svg("path", { class: "cross", d: `M${x - 7},${y - 7}l14,14m0,-14l-14,14` }));
  return svg("g", {}, ...parts);
}

function picture(state, before) {
  const { host, bridges, order } = plan(state);
  const columns = Math.max(order.length, 1);
  const width = Math.max(960, columns * (LEAST + GAP) + 2 * MARGIN);
  const column = Math.min(MOST, (width - 2 * MARGIN - (columns - 1) * GAP) / columns);
  const start = (width - columns * column - (columns - 1) * GAP) / 2;
  const left = (index) => start + index * (column + GAP);
  const middle = (index) => left(index) + column / 2;
  const parts = [];

  const published = state.published;
  const hostTop = published.length ? 66 : 10;
  const bridgeTop = hostTop + 42, bridgeHeight = 40, hostBottom = bridgeTop + bridgeHeight + 46;
  const boxTop = hostBottom + 46;
  const boxes = order.map((one) => (one.space ? lines(one.space) : []));
  const boxHeight = 50 + LINE * Math.max(3, ...boxes.map((one) => one.length));
  const height = boxTop + boxHeight + 10;

  // The lab host, with its own links and routes.
  parts.push(svg("rect", { class: "host", x: 4, y: hostTop, width: width - 8, height: hostBottom - hostTop, rx: 6 }));
  parts.push(text(MARGIN, hostTop + 18, host.name, "title"));
  const passes = state.forwards ? "passes packets on" : "does not pass packets on (ip_forward is 0)";
  const nat = state.masqueraded.length ? `; NAT by ${state.masqueraded.join(", ")}` : "";
  parts.push(text(width - MARGIN, hostTop + 18, passes + nat, "faint", "end"));

  const ends = new Map(); // (namespace, link) -> where its plug is
  for (const { bridge, columns: members, loose } of bridges) {
    const x0 = left(Math.min(...members)), x1 = left(Math.max(...members)) + column;
    parts.push(svg("rect", { class: `bridge ${bridge.up ? "" : "down"}`, x: x0, y: bridgeTop, width: x1 - x0, height: bridgeHeight, rx: 4 }));
    const label = `bridge ${bridge.name}  ${bridge.up ? "" : "DOWN  "}${bridge.addresses.join(" ")}`;
    parts.push(fitted(x0 + 10, bridgeTop + 17, label, x1 - x0 - 20, "code strong"));
    if (bridge.duplicates.length) parts.push(text(x0 + 10, bridgeTop + 33, "⚠ its address is there twice", "trouble"));
    else if (!members.length || loose?.length) parts.push(fitted(x0 + 10, bridgeTop + 33, loose.length ? `ports: ${loose.map((one) => one.name).join(", ")}` : "no ports", x1 - x0 - 20, "faint"));
  }

  // Pairs between the lab host and a namespace.
  const used = new Map();
  order.forEach((one, index) => {
    if (!one.space) return;
    const there = one.space.links.filter((link) => link.peer);
    there.forEach((link, number) => {
      const x = middle(index) + (number - (there.length - 1) / 2) * 60;
      ends.set(`${one.space.id} ${link.name}`, { x, y: boxTop, link });
    });
  });
  for (const link of host.links.filter((one) => one.peer && one.peer.id !== host.id)) {
    const far = ends.get(`${link.peer.id} ${link.peer.name}`);
    if (!far) continue;
    const inBridge = bridges.some((entry) => entry.bridge.name === link.master);
    const y = inBridge ? bridgeTop + bridgeHeight : hostBottom;
    const up = isUp(link) && isUp(far.link);
    parts.push(svg("line", { class: `cable ${up ? "" : "down"}`, x1: far.x, x2: far.x, y1: y, y2: far.y }));
    parts.push(plug(far.x, y, link), plug(far.x, far.y, far.link));
    const addresses = link.addresses.join(" ");
    parts.push(fitted(far.x + 9, inBridge ? y + 16 : y - (addresses ? 22 : 8), link.name, column / 2 + 20, "code"));
    if (addresses) parts.push(text(far.x + 9, inBridge ? y + 31 : y - 8, `${link.duplicates.length ? "⚠ " : ""}${addresses}`, `code ${link.duplicates.length ? "trouble" : ""}`));
    if (!up) parts.push(text(far.x + 12, boxTop - 18, "✕ no connection", "trouble halo"));
    used.set(far, true);
  }

  // Pairs between two namespaces: an arc between the boxes.
  const arcs = new Set();
  for (const [key, end] of ends) {
    if (used.has(end) || end.link.peer.id === host.id) continue;
    const other = ends.get(`${end.link.peer.id} ${end.link.peer.name}`);
    if (!other || arcs.has(other)) continue;
    arcs.add(end);
    const up = isUp(end.link) && isUp(other.link);
    const top = boxTop - 34;
    parts.push(svg("path", { class: `cable ${up ? "" : "down"}`, d: `M${end.x},${end.y}C${end.x},${top} ${other.x},${top} ${other.x},${other.y}` }));
    parts.push(plug(end.x, end.y, end.link), plug(other.x, other.y, other.link));
    if (!up) parts.push(text((end.x + other.x) / 2, boxTop - 12, "✕ no connection", "trouble halo", "middle"));
  }

  // The namespaces.
  const seen = new Map((before?.namespaces ?? []).map((space) => [space.id, JSON.stringify(space)]));
  order.forEach(({ space }, index) => {
    if (!space) return;
    const changed = before && seen.get(space.id) !== JSON.stringify(space);
    parts.push(svg("rect", { class: `box ${changed ? "changed" : ""}`, x: left(index), y: boxTop, width: column, height: boxHeight, rx: 6 }));
    for (const link of space.links.filter((one) => one.peer)) {
      const end = ends.get(`${space.id} ${link.name}`);
      parts.push(plug(end.x, end.y, link));
    }
    parts.push(fitted(left(index) + 10, boxTop + 20, space.name, column - 20, "title"));
    parts.push(text(left(index) + 10, boxTop + 35, `net:[${space.id}]`, "code faint"));
    boxes[index].forEach((line, number) => {
      const x = left(index) + 10, y = boxTop + 54 + LINE * number;
      if (line.mark) parts.push(text(x, y, line.mark, line.mark === "✕" ? "trouble" : "good"));
      const indent = line.mark || line.indent ? 16 : 0;
      parts.push(fitted(x + indent, y, line.content, column - 20 - indent, line.kind));
    });
  });

  // Published ports: from the machine above, past the lab host's own network, into a box.
  if (published.length) {
    parts.push(text(width - MARGIN, 20, "this machine", "title", "end"));
    parts.push(svg("line", { class: "edge", x1: 4, x2: width - 4, y1: 56, y2: 56 }));
    const count = new Map();
    for (const one of published) {
      const index = order.findIndex((entry) => entry.space?.id === one.id);
      if (index < 0) continue;
      const number = count.get(index) ?? 0;
      count.set(index, number + 1);
      if (number > 1) continue;
      const x = left(index) + column - 16 - number * 22;
      parts.push(svg("path", { class: "relay", d: `M${x},${46 - number * 18}V${boxTop}` }));
      parts.push(svg("path", { class: "arrow", d: `M${x - 4},${boxTop - 8}h8l-4,8z` }));
      const [at, anchor] = x < 260 ? [x - 4, "start"] : [x + 4, "end"];
      parts.push(text(at, 42 - number * 18, `${one.outside} → port ${one.port}`, "code halo", anchor));
    }
  }

  const element = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "network", role: "img", "aria-label": described(state) }, ...parts);
  element.style.minWidth = `${width > 960 ? width : 720}px`;
  return make("div", "wide", element);
}

// The picture in words.
function described(state) {
  const names = new Map(state.namespaces.map((space) => [space.id, space.name]));
  const of = (space) =>
    space.links.map((link) => {
      const to = link.peer ? ` to ${link.peer.name} of ${names.get(link.peer.id)}` : "";
      return `${link.name} ${word(link)} ${link.addresses.join(" ")}${link.master ? ` in ${link.master}` : ""}${to}`;
    });
  return state.namespaces.map((space) => `${space.name}: ${[...of(space), ...space.routes.map((route) => `route ${route}`)].join("; ")}.`).join(" ");
}

function inWords(state) {
  const names = new Map(state.namespaces.map((space) => [space.id, space.name]));
  const rows = state.namespaces.flatMap((space) =>
    space.links.map((link) =>
      row("", space.name, code(link.name), link.kind, word(link), code(link.addresses.join(" ") || "–"),
        link.peer ? `${link.peer.name} of ${names.get(link.peer.id)}` : link.master ? `in ${link.master}` : "–", code(link.mac ?? "–")),
    ),
  );
  const details = make("details", "", make("summary", "", "The same in words"));
  details.append(make("div", "scroll", table(["namespace", "interface", "kind", "state", "address", "other end", "MAC"], rows)));
  return details;
}

let wordsOpen = false;

function draw(state, before) {
  if (!state.namespaces?.length) return frame(state, "Nothing was seen yet.");
  const troubles = state.troubles.map((one) => make("p", "trouble", "⚠ ", one));
  const words = inWords(state);
  words.open = wordsOpen;
  words.addEventListener("toggle", () => (wordsOpen = words.open));
  return frame(state, "", picture(state, before), ...troubles, words);
}

export default live(draw);
