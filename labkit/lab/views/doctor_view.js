// The doctor's tables. All text is set as text, never as HTML; every colour has a word beside it.

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const MARKS = { yes: "✓ yes", partly: "~ partly", no: "✗ no", "-": "" };
const COLOURS = {
  yes: "var(--jp-success-color1, #2e7d32)",
  partly: "var(--jp-warn-color1, #b45309)",
  no: "var(--jp-error-color1, #c62828)",
};

function mark(status) {
  const element = make("b", "", MARKS[status] ?? status);
  element.style.color = COLOURS[status] ?? "inherit";
  element.style.whiteSpace = "nowrap";
  return element;
}

function table(headings, rows) {
  const head = make("tr", "", ...headings.map((text) => make("th", "", text)));
  const body = rows.map(({ changed, cells }) => make("tr", changed ? "changed" : "", ...cells.map((cell) => make("td", "", cell))));
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
}

function machine(state, before) {
  const old = new Map((before?.findings ?? []).map((one) => [one.topic, one]));
  const rows = state.findings.map((one) => {
    const past = old.get(one.topic);
    return {
      changed: past && (past.status !== one.status || past.seen !== one.seen),
      cells: [one.topic.replace(/^ +/, "\u00a0\u00a0\u00a0"), mark(one.status), one.seen, make("span", "command", one.mend)],
    };
  });
  return table(["", "can it?", "what was seen", "what to do"], rows);
}

function labs(state) {
  const here = state.labs.filter((one) => one.exists);
  const rows = here.map((one) => ({
    cells: [one.number, one.title, mark(one.lacks.length ? "no" : "yes"), one.lacks.join(", ")],
  }));
  return here.length ? table(["lab", "", "runs here?", "what it lacks"], rows) : make("p", "note", "No lab was found.");
}

function render({ model, el }) {
  let before = null;
  const page = make("div", "");
  const again = make("button", "jp-Button jp-mod-styled", "Look again");
  again.style.cssText = "padding:2px 12px;line-height:1.6;height:auto;cursor:pointer";
  again.addEventListener("click", () => model.send({ kind: "look" }));
  const note = make("span", "note", "It looks again by itself every ten seconds. A line that has changed is shaded.");
  const bar = make("div", "", again, " ", note);
  bar.style.marginTop = "8px";
  const root = make("section", "labkit-view", page, bar);
  root.setAttribute("aria-label", "The doctor's table of this machine");
  el.replaceChildren(root);
  const update = () => {
    const state = model.get("state");
    page.replaceChildren(
      make("h4", "", "This machine"), machine(state, before),
      make("h5", "", "The labs that are here"), labs(state),
    );
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

export default { render };
