// The live view "what is isolated": draws what labkit/course/views/isolation.py has found.

const FULL_NAMES = {
  mnt: "mounts", uts: "hostname", ipc: "IPC", pid: "processes", net: "network",
  user: "users", cgroup: "cgroups", time: "clocks", pid_for_children: "its children's processes",
};

function judgement(same) {
  if (same === null || same === undefined) return make("span", "", "? cannot be read");
  return same
    ? make("span", "same", make("span", "mark", "= "), "same")
    : make("span", "different", make("span", "mark", "≠ "), "different");
}

function namespaces(state, before) {
  const old = new Map((before?.namespaces ?? []).map((one) => [one.kind, one.inside]));
  return table(
    ["namespace", "of the lab host", "of the process", ""],
    state.namespaces.map((one) =>
      row(
        old.has(one.kind) && old.get(one.kind) !== one.inside ? "changed" : "",
        make("span", "", code(one.kind), " ", FULL_NAMES[one.kind] ?? ""),
        code(one.host ?? "?"),
        code(one.inside ?? "?"),
        judgement(one.same),
      ),
    ),
  );
}

function processes(state, before) {
  const old = new Set((before?.processes ?? []).map((one) => one.outside));
  const rows = state.processes.map((one) =>
    row(
      before && !old.has(one.outside) ? "changed" : "",
      code(one.outside),
      code(one.inside),
      make("span", "command", "\u00a0\u00a0".repeat(one.depth), one.depth ? "└ " : "", code(one.command)),
    ),
  );
  const note = state.processes_left_out ? [make("p", "note", `and ${state.processes_left_out} more`)] : [];
  return make("div", "", table(["PID outside", "PID inside", "command"], rows), ...note);
}

const TRAVELS = {
  shared: "⇄ shared", receives: "← receives", "shared, receives": "⇄ shared, receives", private: "private", unbindable: "unbindable",
};

// A tree: what is new, and what it stands on, down to the root.
function mounts(state, before) {
  const key = (one) => `${one.depth} ${one.mount_point} ${one.filesystem} ${one.source}`;
  const old = new Map((before?.mounts ?? []).map((one) => [key(one), one]));
  const isChanged = (one) => {
    const then = old.get(key(one));
    return before?.mounts && (!then || then.propagation !== one.propagation || then.readonly !== one.readonly);
  };
  const shown = state.mounts.filter((one) => one.new || one.holds_new || one.depth === 0);
  const rows = shown.map((one) => {
    const place = make("span", "command", "\u00a0\u00a0".repeat(one.depth), one.depth ? "└ " : "", code(one.mount_point));
    return row(
      (one.new ? "new" : "") + (isChanged(one) ? " changed" : ""),
      one.new ? "+ new" : "", place, one.filesystem, make("span", "command", code(one.source)),
      one.readonly ? "read-only" : "writable", TRAVELS[one.propagation] ?? one.propagation,
    );
  });
  const fresh = state.mounts.filter((one) => one.new).length;
  const headings = ["", "mounted on", "file system", "source", "", "propagation"];
  const text = (fresh ? "" : "No mount that the lab host does not have. ")
    + `${state.mounts.length - fresh} mounts as on the lab host; ${state.mounts_of_host_gone} of the lab host's mounts are not visible here.`;
  return make("div", "", make("div", "scroll", table(headings, rows)), make("p", "note", text));
}

function draw(state, before) {
  if (!state.namespaces) return frame(state, "The process had ended before it could be looked at.");
  return frame(
    state, "",
    make("h5", "", "Namespaces"), namespaces(state, before),
    make("h5", "", "Processes"), processes(state, before),
    make("h5", "", "Mounts"), mounts(state, before),
  );
}

export default live(draw);
