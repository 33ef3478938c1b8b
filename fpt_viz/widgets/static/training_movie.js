// A training run as a movie: one place in training, and everything that was captured there.
function trainingMovie(shell) {
  const { fixed } = shell;
  const steps = fixed.steps, last = steps.length - 1;
  const state = { at: null, timer: 0, frames: null, decoded: null, cell: fixed.runs.map(() => [0, 0]), hovered: null };
  const scores = fixed.runs.map((run) => fpt.decode(run.scores));
  const gains = fixed.runs.map((run) => Object.fromEntries(Object.entries(run.gains).map(([kind, one]) => [kind, fpt.decode(one)])));

  const at = () => state.at ?? Math.max(steps.indexOf(shell.choice.step), 0);
  const step = () => steps[at()];
  // The last capture of a run up to the step shown; a run that ended keeps its last.
  const captureOf = (run) => { let i = run.steps.length - 1; while (i > 0 && run.steps[i] > step()) i--; return i; };

  // Moving on. While it plays, only the page moves; where it stops, Python is told.
  function show(place, { tell = true } = {}) {
    state.at = Math.min(Math.max(place, 0), last);
    if (tell) { shell.choose({ step: steps[state.at] }, { asks: false }); state.at = null; }
    shell.redraw();
  }
  function pause() {
    if (!state.timer) return;
    clearTimeout(state.timer);
    state.timer = 0;
    show(at());
  }
  function tick() {
    if (!shell.root.isConnected) return;
    if (at() >= last) { state.timer = 0; show(last); return; }
    show(at() + 1, { tell: false });
    state.timer = setTimeout(tick, 1000 / shell.choice.speed);
  }
  function play() {
    if (state.timer) { pause(); return; }
    show(at() >= last ? 0 : at(), { tell: false });
    state.timer = setTimeout(tick, 1000 / shell.choice.speed);
  }
  const toStep = (wanted) => { pause(); show(curves.nearest(steps, wanted)); };

  // Controls.
  const controls = [];
  const add = (control, set) => { controls.push(() => set(control)); shell.bar.append(control.node); };
  const ofPlay = fpt.button("Play", play);
  ofPlay.node.classList.add("fpt-play");
  shell.bar.append(ofPlay.node);
  add(fpt.range("step", { min: 0, max: last, words: (i) => `${steps[i]} of ${steps[last]}` }, (i) => { pause(); show(i); }),
    (one) => { one.set(at()); one.control.setAttribute("aria-valuetext", `step ${step()}`); });
  shell.bar.lastChild.classList.add("fpt-wide");
  add(fpt.select("steps a second", fixed.speeds.map((one) => [one, String(one)]), (speed) => shell.choose({ speed }, { asks: false })),
    (one) => one.set(shell.choice.speed));
  if (fixed.has_mean && fixed.n_examples) {
    add(fpt.check("mean over examples", (on) => shell.choose({ example: on ? -1 : 0 })), (one) => one.set(shell.choice.example < 0));
  }
  if (fixed.n_examples > 1) {
    add(fpt.range("example", { min: 0, max: fixed.n_examples - 1 }, (example) => shell.choose({ example })),
      (one) => { one.set(Math.max(shell.choice.example, 0)); one.control.disabled = shell.choice.example < 0; });
  }
  const kinds = Object.keys(fixed.gain_top);
  if (kinds.length) {
    add(fpt.select("layer-norm gains", kinds.map((kind) => [kind, fixed.gain_words[kind]]), (kind) => shell.choose({ gains: kind }, { asks: false })),
      (one) => one.set(shell.choice.gains));
  }

  // Curves of the whole training, with a cursor at the step shown.
  const several = fixed.runs.length > 1;
  const lines = (quantity) => fixed.runs.flatMap((run, series) => curves.ofRun(run.curves, quantity, series, { name: several ? run.name : "" }));
  const charts = [
    ["accuracy", "Accuracy", "accuracy per target", lines("accuracy"), fixed.levels.map(([value, label]) => ({ at: value, label }))],
    ["loss", "Loss", "loss (nats a target)", lines("loss"), []],
  ].map(([quantity, title, yTitle, drawn, levels]) => {
    const chart = curves.chart(`${title} against gradient steps. Arrow keys move through training.`, { say: shell.say, moved: toStep });
    chart.node.dataset.chart = quantity;
    shell.pane(title, chart.node);
    return { chart, quantity, yTitle, drawn, levels };
  });
  const normChart = kinds.length ? curves.chart("Layer-norm gains, in order of depth. Arrow keys move from norm to norm.", { say: shell.say }) : null;
  if (normChart) {
    normChart.node.dataset.chart = "gains";
    shell.pane("Layer-norm gains", normChart.node);
  }
  const kept = new Map();
  function normLines(kind) {
    const key = `${kind} ${fixed.runs.map(captureOf).join(" ")}`;
    if (!kept.has(key)) {
      kept.clear();
      kept.set(key, fixed.runs.map((run, series) => {
        const { shape: [, n], values } = gains[series][kind], from = captureOf(run) * n;
        return { label: several ? run.name : "", series, x: run.norms.map((_, i) => i), y: Array.from(values.subarray(from, from + n)), markers: true };
      }));
    }
    return kept.get(key);
  }

  // Each run: routing scores of all heads, and patterns of the chosen ones.
  const sequential = () => paint.table(fixed.scales.sequential, fpt.colour(shell.root, "--fpt-unreachable"));
  const isChosen = (layer, head) => shell.choice.heads.some(([l, h]) => l === layer && h === head);
  function toggle(run, [layer, head]) {
    const name = fpt.head(layer, head), { heads } = shell.choice;
    if (isChosen(layer, head)) { shell.choose({ heads: heads.filter(([l, h]) => l !== layer || h !== head) }, { asks: false }); return; }
    if (!fixed.heads.some(([l, h]) => l === layer && h === head)) { shell.say(`No pattern of ${name} is at hand.`); return; }
    const found = [...heads, [layer, head]].slice(-fixed.most_heads);
    shell.choose({ heads: found }, { asks: false });
  }
  const panes = fixed.runs.map((run, r) => {
    const title = fpt.element("h4"), under = fpt.element("div", { className: "fpt-patterns" });
    const say = ([layer, head]) => {
      const score = scores[r] ? scoreOf(r, layer, head) : null;
      shell.say(`${run.name}, step ${run.steps[captureOf(run)]}, ${fpt.head(layer, head)}: `
        + `${score === null ? "no routing score" : `routing score ${fpt.number(score)}`}${isChosen(layer, head) ? ", its pattern is shown" : ""}`);
    };
    const move = (dx, dy) => {
      const [nLayers, nHeads] = run.shape, [l, h] = state.cell[r];
      state.cell[r] = [Math.min(Math.max(l + dy, 0), nLayers - 1), Math.min(Math.max(h + dx, 0), nHeads - 1)];
      say(state.cell[r]);
      shell.redraw();
    };
    const grid = fpt.canvas(`Heads of ${run.name}. Arrow keys move; Enter shows or hides a head's pattern.`, {
      moved: move,
      entered() { toggle(r, state.cell[r]); },
      hovered(x, y) { const one = cellAt(r, x, y); grid.style.cursor = one ? "pointer" : "default"; if (one) say(one); },
      clicked(x, y) { const one = cellAt(r, x, y); if (one) { state.cell[r] = one; toggle(r, one); say(one); } },
    });
    grid.classList.add("fpt-scores");
    for (const event of ["focus", "blur"]) grid.addEventListener(event, () => shell.redraw());
    const pane = shell.pane("", title, grid, under);
    pane.dataset.run = String(r);
    return { title, grid, under, pane, places: null, patterns: [] };
  });
  const legend = fpt.element("span", { className: "fpt-scale" }), scoreLegend = fpt.element("span", { className: "fpt-scale" });
  const scaleBar = fpt.element("div", { className: "fpt-bar" }, scoreLegend, legend);
  if (fixed.uniform !== null) scaleBar.append(fpt.element("span", { className: "fpt-scale" }, `a head that attends to every key alike: ${fpt.number(fixed.uniform)}`));
  shell.root.insertBefore(scaleBar, shell.status);

  const scoreOf = (r, layer, head) => {
    const run = fixed.runs[r], [nLayers, nHeads] = run.shape;
    return scores[r].values[(captureOf(run) * nLayers + layer) * nHeads + head];
  };
  function cellAt(r, x, y) {
    const { left, top, width, height } = panes[r].places, [nLayers, nHeads] = fixed.runs[r].shape;
    const layer = Math.floor((y - top) / height), head = Math.floor((x - left) / width);
    return layer >= 0 && layer < nLayers && head >= 0 && head < nHeads ? [layer, head] : null;
  }

  function drawScores(r, room) {
    const run = fixed.runs[r], { grid } = panes[r], [nLayers, nHeads] = run.shape, left = 26, top = 16;
    const width = Math.max(9, Math.min(40, Math.floor((room - left - 4) / nHeads))), height = Math.max(9, Math.min(20, Math.round(width * 0.62)));
    const context = fpt.sized(grid, left + width * nHeads + 4, top + height * nLayers + 4), table = sequential();
    const ink = fpt.colour(shell.root, "--fpt-ink"), muted = fpt.colour(shell.root, "--fpt-muted"), accent = fpt.colour(shell.root, "--fpt-accent");
    const scale = { low: 0, high: fixed.score_top || 1 }, small = "9px system-ui, sans-serif";
    panes[r].places = { left, top, width, height };
    context.textBaseline = "middle";
    for (let layer = 0; layer < nLayers; layer++) {
      for (let head = 0; head < nHeads; head++) {
        const x = left + head * width, y = top + layer * height;
        const entry = table[scores[r] ? paint.step(scoreOf(r, layer, head), scale) : paint.BLANK];
        context.fillStyle = paint.css(entry);
        context.fillRect(x, y, width - 1, height - 1);
        if (scores[r] && width >= 24 && height >= 12) {
          context.fillStyle = paint.on(entry);
          context.font = small;
          context.textAlign = "center";
          context.fillText(fpt.number(scoreOf(r, layer, head), 2), x + width / 2, y + height / 2 + 0.5);
        }
        if (isChosen(layer, head)) paint.box(context, x - 1, y - 1, width + 1, height + 1, accent, 2.5);
      }
    }
    if (grid.matches(":focus")) {
      const [layer, head] = state.cell[r];
      paint.box(context, left + head * width - 2, top + layer * height - 2, width + 3, height + 3, ink, 1.5);
    }
    context.fillStyle = muted;
    context.font = "10px system-ui, sans-serif";
    context.textAlign = "center";
    for (let head = 0, every = paint.stride(nHeads, width, 16); head < nHeads; head += every) context.fillText(String(head), left + (head + 0.5) * width, 8);
    context.textAlign = "left";
    for (let layer = 0, every = paint.stride(nLayers, height); layer < nLayers; layer += every) context.fillText(`L${layer}`, 2, top + (layer + 0.5) * height);
    grid.dataset.step = String(run.steps[captureOf(run)]);
  }

  // The patterns of the chosen heads, one canvas each, kept from step to step.
  function drawPatterns(r, room) {
    const run = fixed.runs[r], one = panes[r], frames = shell.model.get("frames"), { heads } = shell.choice;
    while (one.patterns.length > heads.length) one.patterns.pop().holder.remove();
    while (one.patterns.length < heads.length) one.patterns.push(newPattern(r, one));
    const captured = new Set(run.captured.map(String)), place = captureOf(run);
    const { shape: [, nHeads, rows, columns], values } = state.decoded[r];
    const perRow = Math.max(1, Math.min(heads.length, Math.floor(room / 210)));
    heads.forEach((head, i) => {
      const { caption, canvas } = one.patterns[i], there = captured.has(String(head));
      one.patterns[i].head = head;
      caption.textContent = `${fpt.head(...head)}${there ? "" : ": no pattern captured"}`;
      canvas.hidden = !there;
      if (!there) return;
      const start = (place * nHeads + fixed.heads.findIndex((each) => String(each) === String(head))) * rows * columns;
      const { low, high } = frames.scale;
      const valueAt = (row, column) => {
        const entry = values[start + row * columns + column];
        return entry === paint.BLANK ? NaN : low + (entry / 254) * (high - low);
      };
      canvas.setAttribute("aria-label", `Pattern of ${fpt.head(...head)} in ${run.name}. Arrow keys move from weight to weight.`);
      one.patterns[i].valueAt = valueAt;
      one.patterns[i].places = paint.pattern(canvas, {
        rows, columns, valueAt, rowLabels: frames.names[r].row_labels, columnLabels: frames.names[r].column_labels,
        scale: frames.scale, table: sequential(), ink: fpt.colour(shell.root, "--fpt-ink"), muted: "", hatch: "",
        accent: fpt.colour(shell.root, "--fpt-accent"), size: Math.min(280, room / perRow - 12),
        chosen: canvas.matches(":focus") ? one.patterns[i].cell : null,
      });
      canvas.dataset.drawn = `${head} ${run.steps[place]}`;
    });
  }
  function newPattern(r, one) {
    const made = { caption: fpt.element("div", { className: "fpt-help" }), cell: [0, 0] };
    const say = () => {
      const [row, column] = made.cell, names = shell.model.get("frames").names[r], run = fixed.runs[r], taken = run.steps[captureOf(run)];
      const words = (value, sure) => shell.say(`${run.name}, step ${taken}, ${fpt.head(...made.head)}: ${names.row_labels[row]} reads `
        + `${names.column_labels[column]}, ${Number.isFinite(value) ? `${sure} ${fpt.number(value, sure === "about" ? 2 : 4)}` : "not seen"}`);
      words(made.valueAt(row, column), "about");
      if (!state.timer) {
        shell.ask({ ask: "weight", run: r, head: made.head, step: step(), r: row, c: column },
          ({ weight }) => { if (weight !== undefined && String(made.cell) === String([row, column])) words(weight ?? NaN, "weight"); });
      }
    };
    made.canvas = fpt.canvas("", {
      moved(dx, dy) {
        const { rows, columns } = made.places;
        made.cell = [Math.min(Math.max(made.cell[0] + dy, 0), rows - 1), Math.min(Math.max(made.cell[1] + dx, 0), columns - 1)];
        say();
        shell.redraw();
      },
      hovered(x, y) { const found = made.places.at(x, y); if (found && String(found) !== String(state.hovered)) { made.cell = state.hovered = found; say(); } },
      left() { state.hovered = null; },
    });
    made.canvas.classList.add("fpt-pattern");
    for (const event of ["focus", "blur"]) made.canvas.addEventListener(event, () => shell.redraw());
    made.holder = fpt.element("div", {}, made.caption, made.canvas);
    one.under.append(made.holder);
    return made;
  }

  shell.help.textContent = "Drag the slider, click in a chart, or play. Click a head to show or hide its pattern. Pale line: training batch, "
    + `mean of ${[...new Set(fixed.runs.map((run) => run.curves.window))].join(" and ")} steps, dropout on; with markers: validation. `
    + "Every scale is the same for all steps and both runs. Attention is not by itself an explanation.";
  shell.on("change:frames", () => shell.redraw());

  return () => {
    for (const set of controls) set();
    ofPlay.node.textContent = state.timer ? "Pause" : "Play";
    ofPlay.set(Boolean(state.timer));
    const frames = shell.model.get("frames");
    if (state.frames !== frames) { state.frames = frames; state.decoded = frames.runs.map(fpt.decode); }
    const room = Math.max(280, (shell.width || 900) - 24), nCharts = charts.length + (normChart ? 1 : 0);
    const perRow = Math.max(1, Math.min(nCharts, Math.floor(room / 330)));
    const width = Math.floor((room - 16 * (perRow - 1)) / perRow), height = 210;
    const x = { xTitle: "gradient steps", xRange: fixed.ranges.step, xWords: (value) => `step ${value}` };
    for (const { chart, quantity, yTitle, drawn, levels } of charts) {
      chart.draw({ ...x, width, height, yTitle, yRange: fixed.ranges[quantity], lines: drawn, levels, styles: fixed.styles, cursor: step() });
    }
    if (normChart) {
      const { gains: kind } = shell.choice, n = Math.max(...fixed.runs.map((run) => run.norms.length));
      const longest = fixed.runs.find((run) => run.norms.length === n);
      normChart.draw({
        width, height, lines: normLines(kind), styles: fixed.styles, xTitle: "layer norm, in order of depth", yTitle: fixed.gain_words[kind],
        xRange: [-0.5, n - 0.5], yRange: [0, fixed.gain_top[kind]], xWords: (i) => longest.norms[i] || `norm ${i}`, levels: fixed.none,
      });
    }
    const beside = room >= 900 ? fixed.runs.length : 1, each = Math.floor((room - 16 * (beside - 1)) / beside);
    fixed.runs.forEach((run, r) => {
      const taken = run.steps[captureOf(run)], ended = step() > run.n_steps ? `; it ended at step ${run.n_steps}` : "";
      const solved = run.solved !== null && run.solved <= step() ? `; solved at step ${run.solved}` : "";
      panes[r].title.textContent = `${run.name}, step ${taken}${solved}${ended}`;
      panes[r].pane.style.width = `${each}px`;
      drawScores(r, each);
      drawPatterns(r, each);
    });
    const table = sequential();
    paint.scale(legend, frames.scale, table, `weight${frames.bin > 1 ? ` (largest of ${frames.bin} x ${frames.bin})` : ""}`);
    scoreLegend.hidden = fixed.score_top === null;
    if (fixed.score_top !== null) paint.scale(scoreLegend, { low: 0, high: fixed.score_top }, table, "cells: routing score by layer and head");
    shell.root.dataset.step = String(step());
  };
}

const fptWidget = { render: (context) => fpt.render(context, trainingMovie) };
export default fptWidget;
