
// System calls as they came: draws what labkit/course/views/calls.py was given.

function draw(state) {
  const rows = state.rows.map(([pid, name, given, result]) => {
    const words = make("span", "command", code(given.join(" ")));
    return row("", pid, make("b", "", name), words, result);
  });
  const found = table(["process", "call", "its six arguments, as numbers", "result"], rows);
  const scroll = make("div", "scroll", found);
  scroll.style.maxHeight = "330px";
  const parts = [scroll];
  if (state.left_out) parts.push(make("p", "note", `and ${state.left_out} more`));
  return frame(state, state.rows.length ? "" : "No call was seen.", ...parts);
}

export default live(draw);
