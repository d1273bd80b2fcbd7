
// Figures side by side: draws what labkit/course/views/figures.py was given.

const STEPS = { time: [1000, ["ns", "µs", "ms", "s"]], memory: [1024, ["bytes", "KiB", "MiB", "GiB"]] };

function words(value, family) {
  const [size, names] = STEPS[family];
  let place = 0;
  for (; value >= size && place < names.length - 1; place += 1) value /= size;
  return `${value.toFixed(value >= 100 || (!place && family === "memory") ? 0 : 1)} ${names[place]}`;
}

// Each bar begins a little below the smallest figure, so that ten times as much is the same step everywhere.
function bar(value, low, high) {
  const inner = make("span", "fill");
  inner.style.width = `${(100 * (Math.log10(Math.max(value, low)) - Math.log10(low))) / (Math.log10(high) - Math.log10(low))}%`;
  const outer = make("span", "bar", inner);
  outer.style.cssText = "width:100%;min-width:160px;margin-top:6px";
  outer.setAttribute("aria-hidden", "true"); // the figure stands beside it
  return outer;
}

function draw(state) {
  const known = state.rows.map(([, value]) => value).filter((value) => value > 0);
  const low = Math.min(...known) / 3, high = Math.max(...known, low * 10);
  const rows = state.rows.map(([name, value, note]) => {
    const figure = make("b", "", value === null ? "–" : words(value, state.family));
    figure.style.whiteSpace = "nowrap";
    const line = row("", name, figure, value > 0 ? bar(value, low, high) : "", make("span", "note", note));
    line.children[1].className = "number";
    line.children[2].style.width = "40%";
    return line;
  });
  const note = "Measured in this run. On this scale the same length more is the same factor more.";
  return frame(state, "", table(["", "", "", ""], rows), make("p", "note", state.machine), make("p", "note", note));
}

export default live(draw);
