// A computer's serial console: draws what labkit/course/views/console_view.py has read, and sends what is typed.

const HISTORY_MOST = 100;

// Made once, so that neither what is being typed nor its place is lost when text arrives.
function build(own) {
  own.history = [];
  own.at = 0;
  own.screen = make("pre", "screen");
  own.screen.tabIndex = 0;
  own.screen.setAttribute("aria-label", "What the computer wrote");
  own.input = make("input", "line");
  Object.assign(own.input, { type: "text", spellcheck: false, autocomplete: "off", placeholder: "a command, then Enter" });
  own.input.setAttribute("aria-label", "Type on the computer's console");
  own.interrupt = make("button", "interrupt", "Ctrl-C");
  own.interrupt.type = "button";
  own.interrupt.title = "Interrupt what runs on the console";
  own.interrupt.addEventListener("click", () => own.send({ kind: "interrupt" }));
  own.input.addEventListener("keydown", (event) => key(own, event));
  own.title = make("h4", "");
  own.status = make("span", "status");
  own.status.setAttribute("role", "status");
  own.note = make("p", "note");
  own.root = make(
    "section", "labkit-view console",
    make("header", "", own.title, own.status), own.note, own.screen,
    make("div", "keyboard", make("span", "prompt", ">"), own.input, own.interrupt),
  );
  // JupyterLab has keys of its own, such as those that move between cells.
  own.root.addEventListener("keydown", (event) => event.stopPropagation());
}

function key(own, event) {
  if (event.key === "Enter") {
    const line = own.input.value;
    own.send({ kind: "type", line });
    if (line.trim()) own.history = [...own.history, line].slice(-HISTORY_MOST);
    own.at = own.history.length;
    own.input.value = "";
    own.follow = true;
  } else if (event.key === "c" && event.ctrlKey && own.input.selectionStart === own.input.selectionEnd) {
    own.send({ kind: "interrupt" });
  } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    own.at = Math.min(own.history.length, Math.max(0, own.at + (event.key === "ArrowUp" ? -1 : 1)));
    own.input.value = own.history[own.at] ?? "";
  } else return;
  event.preventDefault();
}

function draw(state, before, look, own) {
  if (!own.root) build(own);
  const ended = state.status === "ended";
  const below = own.screen.scrollHeight - own.screen.scrollTop - own.screen.clientHeight;
  own.root.setAttribute("aria-label", state.title ?? "");
  own.root.classList.toggle("ended", ended);
  own.title.textContent = state.title ?? "";
  own.status.textContent = ended ? "■ ended" : "● live";
  own.note.textContent = ended ? (state.ended_note ?? "") : state.left_out ? "The beginning is left out." : "";
  own.note.hidden = !own.note.textContent;
  own.input.disabled = own.interrupt.disabled = ended;
  if (own.screen.textContent !== state.text) own.screen.textContent = state.text ?? "";
  // Follow what comes, unless somebody has scrolled up to read.
  if (below < 30 || own.follow || !before) {
    const down = () => (own.screen.scrollTop = own.screen.scrollHeight);
    down();
    requestAnimationFrame(down);
  }
  own.follow = false;
  return own.root;
}

export default live(draw);
