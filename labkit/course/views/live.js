// What every live view is drawn with; it stands before the view's own script, which must have
//
//     draw(state, before, look, own) -> Element     state: what look() returned; before: the state drawn last, or null;
//                                                   look(): have it look again now
//     export default live(draw);
//
// A view that people type into keeps its elements: it puts them into `own`, changes them, and returns the same again.
// own.send(message) reaches the view's `received` in Python.
//
// All text is set as text, never as HTML: names of processes are anybody's.

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  for (const child of children) element.append(child);
  return element;
}

function row(className, ...cells) {
  return make("tr", className, ...cells.map((cell) => (cell instanceof Node ? make("td", "", cell) : make("td", "", String(cell)))));
}

function table(headings, rows) {
  const head = make("tr", "", ...headings.map((text) => make("th", "", text)));
  return make("table", "", make("thead", "", head), make("tbody", "", ...rows));
}

const code = (text) => make("code", "", String(text));

// The frame of a view: its title, and whether it still follows. `lost` is what to say where nothing was ever seen.
function frame(state, lost, ...parts) {
  const ended = state.status === "ended";
  const status = make("span", "status", ended ? "■ ended" : "● live");
  status.setAttribute("role", "status");
  const root = make("section", "labkit-view" + (ended ? " ended" : ""));
  root.setAttribute("aria-label", state.title ?? "");
  root.append(make("header", "", make("h4", "", state.title ?? ""), status));
  if (lost) root.append(make("p", "note", lost));
  else if (ended) {
    const note = state.ended_note ?? "It has ended, or the view was closed. This is what was seen last.";
    if (note) root.append(make("p", "note", note));
  }
  root.append(...parts);
  return root;
}

function live(draw) {
  function render({ model, el }) {
    let before = null;
    const look = () => model.send({ kind: "look" });
    const own = { send: (message) => model.send(message) };
    const update = () => {
      const state = model.get("state");
      const scrolled = el.querySelector(".scroll")?.scrollTop ?? 0;
      const drawn = draw(state, before, look, own);
      if (drawn !== el.firstChild) el.replaceChildren(drawn);
      const scroll = el.querySelector(".scroll");
      if (scroll) scroll.scrollTop = scrolled;
      before = state;
    };
    update();
    model.on("change:state", update);
    model.send({ kind: "shown" });
    return () => {
      model.off("change:state", update);
      model.send({ kind: "hidden" });
    };
  }
  return { render };
}

