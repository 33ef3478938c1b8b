// The runs in a folder, and those selected side by side.
function runBrowser(shell) {
  const { fixed } = shell;
  const state = { runs: [], lines: null, drawn: "" };
  const choose = (fields) => shell.choose(fields, { asks: false });
  const byPath = () => new Map(state.runs.map((run) => [run.path, run]));

  // Controls.
  const search = fpt.element("input", { type: "search", placeholder: "such as: xor random" });
  search.addEventListener("input", () => choose({ filter: search.value }));
  search.addEventListener("keydown", (event) => event.stopPropagation());
  const again = fpt.button("Look again", () => shell.choose({ looks: shell.choice.looks + 1 }));
  const none = fpt.button("Select none", () => choose({ selected: [] }));
  const all = fpt.button("Select all shown", () => {
    const there = shown().filter((run) => run.status === "finished").map((run) => run.path);
    choose({ selected: [...new Set([...shell.choice.selected, ...there])] });
  });
  const counted = fpt.element("span", { className: "fpt-count" });
  shell.bar.append(fpt.field("filter", search), all.node, none.node, again.node, counted);

  // The table.
  const body = fpt.element("tbody"), heads = new Map();
  const headRow = fpt.element("tr", {}, fpt.element("th", { scope: "col" }, fpt.element("span", { className: "fpt-hidden" }, "selected")));
  for (const { name, words, number } of fixed.columns) {
    const button = fpt.button(words, () => {
      const { sort, descending } = shell.choice;
      choose(sort === name ? { descending: !descending } : { sort: name, descending: false });
      shell.say(`sorted by ${words}, ${shell.choice.descending ? "descending" : "ascending"}`);
    });
    const head = fpt.element("th", { scope: "col", className: number ? "fpt-number" : "" }, button.node);
    heads.set(name, { head, button: button.node, words });
    headRow.append(head);
  }
  const table = fpt.element("table", { className: "fpt-runs" },
    fpt.element("caption", { className: "fpt-hidden" }, fixed.title), fpt.element("thead", {}, headRow), body);
  const scroll = fpt.element("div", { className: "fpt-scroll", tabIndex: 0, role: "region", "aria-label": `Table: ${fixed.title}` }, table);
  shell.root.insertBefore(scroll, shell.panes);

  const cell = (run, name) => {
    const value = run.cells[name];
    if (value === null || value === undefined) return name === "solved" && run.status === "finished" ? "not" : "–";
    if (name === "accuracy" && run.evaluation) {
      const { accuracy, low, high } = run.evaluation;
      return around(accuracy, low, high);
    }
    if (name === "loss") return fpt.number(value);
    return String(value);
  };
  const around = (value, low, high) => `${(100 * value).toFixed(1)} % (${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`;

  function shown() {
    const { filter, sort, descending } = shell.choice, words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const column = fixed.columns.find(({ name }) => name === sort), sign = descending ? -1 : 1;
    const text = (run) => [run.path, run.status, run.reason, ...fixed.columns.map(({ name }) => cell(run, name)), ...Object.values(run.options)].join(" ").toLowerCase();
    const empty = (value) => value === null || value === undefined;
    const compared = (a, b) => {
      const [x, y] = [a.cells[sort], b.cells[sort]];
      if (empty(x) || empty(y)) return empty(x) - empty(y);  // nothing known comes last, either way
      return sign * (column.number ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
    };
    return state.runs.filter((run) => words.every((word) => text(run).includes(word))).sort(compared);
  }

  function drawTable() {
    const rows = shown(), { selected, sort, descending, filter } = shell.choice, held = document.activeElement;
    const focused = body.contains(held) ? held.dataset.path : null;
    body.replaceChildren(...rows.flatMap((run) => {
      const box = fpt.element("input", { type: "checkbox", checked: selected.includes(run.path), disabled: run.status !== "finished" });
      box.setAttribute("aria-label", `select ${run.path}`);
      box.dataset.path = run.path;
      box.addEventListener("change", () => {
        const others = shell.choice.selected.filter((path) => path !== run.path);
        choose({ selected: box.checked ? [...others, run.path] : others });
      });
      const row = fpt.element("tr", {}, fpt.element("td", {}, box));
      row.dataset.status = run.status;
      for (const { name, number } of fixed.columns) {
        const told = fpt.element(name === "run" ? "th" : "td", { className: number ? "fpt-number" : "" }, cell(run, name));
        if (name === "run") told.setAttribute("scope", "row");
        row.append(told);
      }
      if (focused === run.path) queueMicrotask(() => box.focus());
      if (!run.reason) return [row];
      const reason = fpt.element("td", { colSpan: fixed.columns.length, className: "fpt-help" }, run.reason);
      return [row, fpt.element("tr", { className: "fpt-reason" }, fpt.element("td"), reason)];
    }));
    for (const [name, { head, button, words }] of heads) {
      head.setAttribute("aria-sort", name !== sort ? "none" : descending ? "descending" : "ascending");
      button.textContent = name === sort ? `${words} ${descending ? "▼" : "▲"}` : words;
    }
    if (search.value !== filter && !search.matches(":focus")) search.value = filter;  // never under the typing hand
    counted.textContent = `${rows.length} of ${state.runs.length} runs, ${selected.length} selected`;
    table.dataset.rows = String(rows.length);
  }

  // The runs selected.
  const charts = ["accuracy", "loss"].map((quantity) => {
    const chart = curves.chart(`Curves of ${quantity} of the runs selected. Arrow keys move through training.`, { say: shell.say });
    chart.node.dataset.chart = quantity;
    return { quantity, chart, pane: shell.pane(quantity === "accuracy" ? "Accuracy" : "Loss", chart.node) };
  });
  const compared = curves.dots("Test accuracy of the runs selected, with 95 % intervals");
  const comparedPane = shell.pane("Test accuracy", compared.node);
  const differencesPane = shell.pane("What differs");
  const differences = fpt.element("div", { className: "fpt-differences" });
  differencesPane.append(differences);
  const apart = fpt.element("p", { className: "fpt-apart" });
  shell.panes.prepend(apart);

  // Names as in the figures: those of one name are numbered.
  function names(runs) {
    const seen = {};
    return runs.map(({ name }) => { seen[name] = (seen[name] || 0) + 1; return seen[name] > 1 ? `${name} (${seen[name]})` : name; });
  }

  function drawSelected() {
    const there = byPath(), runs = shell.choice.selected.map((path) => there.get(path)).filter(Boolean);
    const tasks = [...new Set(runs.map((run) => run.cells.task))], alike = tasks.length === 1;
    apart.textContent = tasks.length > 1
      ? `The runs selected are of different tasks (${tasks.join(", ")}), whose accuracies share no axis: only their configs are compared.`
      : runs.length ? "" : "Select finished runs to see their curves, accuracies and what differs between them.";
    apart.hidden = !apart.textContent;
    for (const { pane } of charts) pane.hidden = !alike;
    comparedPane.hidden = !alike;
    differencesPane.hidden = runs.length < 2;
    differencesPane.style.maxWidth = `${(shell.width || 900) >= 724 && alike ? Math.floor(((shell.width || 900) - 40) / 2) : (shell.width || 900) - 24}px`;
    const key = JSON.stringify(shell.choice.selected);
    if (state.drawn !== key || state.from !== state.runs) { state.lines = alike ? linesOf(runs) : null; state.drawn = key; state.from = state.runs; }
    if (alike) drawCurves(runs);
    if (runs.length > 1) drawDifferences(runs);
    shell.panes.dataset.selected = String(runs.length);
  }

  function linesOf(runs) {
    const called = names(runs), series = (i) => i % fixed.styles.length;
    const levels = [...new Map(runs.flatMap((run) => run.levels).map(([at, words]) => [at, { at, label: words }])).values()];
    const found = { levels, noLevels: [] };
    for (const quantity of ["accuracy", "loss"]) {
      // With more than a few runs the batches' curves would hide the checks.
      found[quantity] = runs.flatMap((run, i) => {
        const lines = curves.ofRun(run.curves, quantity, series(i), { name: called[i] });
        return runs.length > 4 && lines.length > 1 ? lines.slice(1) : lines;
      }).map((line) => ({ ...line, label: line.label.replace(/, validation$/, "").replace(/^(.*), batch$/, line.faint ? "" : "$1, batch") }));
    }
    const values = (quantity) => found[quantity].flatMap((line) => line.y).filter((value) => value !== null);
    const least = Math.min(0.45, ...values("accuracy"), ...levels.map(({ at }) => at));
    const losses = values("loss").sort((a, b) => a - b);
    found.ranges = {
      step: [0, Math.max(1, ...found.accuracy.flatMap((line) => line.x))],
      accuracy: [Math.max(-0.02, least - 0.05), 1.03],
      loss: [0, Math.max(0.05, 1.1 * (losses[Math.floor(0.99 * (losses.length - 1))] || 1))],
    };
    found.rows = runs.map((run, i) => {
      const { accuracy, low, high } = run.evaluation;
      return { label: called[i], value: accuracy, low, high, series: series(i), words: around(accuracy, low, high) };
    });
    found.split = `${runs[0].evaluation.split} accuracy per target`;
    return found;
  }

  function drawCurves() {
    const { lines } = state, room = Math.max(280, (shell.width || 900) - 24);
    const perRow = room >= 700 ? 2 : 1, width = Math.floor((room - 16 * (perRow - 1)) / perRow);
    for (const { quantity, chart } of charts) {
      chart.draw({
        width, height: 230, lines: lines[quantity], levels: quantity === "accuracy" ? lines.levels : lines.noLevels, styles: fixed.styles,
        xTitle: "gradient steps", yTitle: quantity === "accuracy" ? "accuracy per target" : "loss (nats a target)",
        xRange: lines.ranges.step, yRange: lines.ranges[quantity], xWords: (x) => `step ${x}`,
      });
    }
    comparedPane.style.width = `${width}px`;
    compared.draw({ width, rows: lines.rows, range: [0, 1], levels: lines.levels, styles: fixed.styles, xTitle: lines.split });
  }

  function drawDifferences(runs) {
    const called = names(runs), options = [...new Set(runs.flatMap((run) => Object.keys(run.options)))];
    const differing = options.filter((name) => new Set(runs.map((run) => run.options[name])).size > 1);
    if (!differing.length) { differences.replaceChildren("Nothing: their configs are the same."); return; }
    const head = fpt.element("tr", {}, fpt.element("th", { scope: "col" }, "option"), ...called.map((name) => fpt.element("th", { scope: "col" }, name)));
    const rows = differing.map((name) => fpt.element("tr", {}, fpt.element("th", { scope: "row" }, name),
      ...runs.map(({ options: own }) => fpt.element("td", {}, own[name] === "" ? "none" : own[name] ?? "–"))));
    differences.replaceChildren(fpt.element("table", {}, fpt.element("thead", {}, head), fpt.element("tbody", {}, ...rows)));
  }

  shell.help.textContent = "Click a heading to sort by it, again to turn the order. Pale lines (up to four runs): training batch, dropout on; with "
    + "markers: validation. Dashed: what needs no routing. Dots: test accuracy with its 95 % bootstrap interval over examples.";
  shell.on("change:runs", () => shell.redraw());
  return () => {
    state.runs = shell.model.get("runs") || state.runs;
    drawTable();
    drawSelected();
  };
}

const fptWidget = { render: (context) => fpt.render(context, runBrowser) };
export default fptWidget;
