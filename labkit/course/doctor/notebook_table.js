
// The doctor's tables: draws what labkit/course/doctor/notebook_table.py has found. Every colour has a word beside it.

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

function machine(findings, before) {
  const old = new Map((before?.findings ?? []).map((one) => [one.topic, one]));
  const rows = findings.map((one) => {
    const past = old.get(one.topic);
    const changed = past && (past.status !== one.status || past.seen !== one.seen);
    const topic = one.topic.replace(/^ +/, "\u00a0\u00a0\u00a0");
    return row(changed ? "changed" : "", topic, mark(one.status), one.seen, make("span", "command", one.mend));
  });
  return table(["", "can it?", "what was seen", "what to do"], rows);
}

function labs(all) {
  const here = all.filter((one) => one.exists);
  if (!here.length) return make("p", "note", "No lab was found.");
  const rows = here.map((one) => row("", one.number, one.title, mark(one.lacks.length ? "no" : "yes"), one.lacks.join(", ")));
  return table(["lab", "", "runs here?", "what it lacks"], rows);
}

function draw(state, before, look) {
  const again = make("button", "jp-Button jp-mod-styled", "Look again");
  again.style.cssText = "padding:2px 12px;line-height:1.6;height:auto;cursor:pointer";
  again.disabled = state.status === "ended";
  again.addEventListener("click", look);
  const note = make("span", "note", "It looks again by itself every ten seconds. A line that has changed is shaded.");
  const bar = make("div", "", again, " ", note);
  bar.style.marginTop = "8px";
  const heading = make("h5", "", "The labs that are here");
  return frame(state, "", machine(state.findings ?? [], before), heading, labs(state.labs ?? []), bar);
}

export default live(draw);
