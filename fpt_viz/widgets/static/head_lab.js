// Heads to switch off and on, and what becomes of one example and of the accuracy.
const SHOWN_ANSWERS = 16, PAUSE_MS = 60;

function headLab(shell) {
  const { fixed } = shell;
  const HEAD_ROOM = fixed.metrics.routing ? 15 : 4;  // above a tile
  const state = { mosaic: null, drawnTiles: null, layout: null };
  const tiles = () => shell.model.get("tiles"), totals = () => shell.model.get("totals");
  const key = (layer, head) => `${layer},${head}`;
  const off = () => new Set(shell.choice.cut.map(([layer, head]) => key(layer, head)));

  // What was switched last here: an answer to an earlier question may still come, and must not undo it.
  const which = () => JSON.stringify([shell.choice.kind, shell.choice.cut]);
  const turn = (fields) => { shell.choose({ ...fields, n: 0, intact: false }); state.mine = which(); };

  // Every switching can be taken back, and done again.
  const sorted = (cut) => cut.slice().sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const change = (cut, fields = {}) => {
    const past = [...shell.choice.past, shell.choice.cut].slice(-fixed.n_past);
    turn({ cut: sorted(cut), past, future: [], ...fields });
  };
  const without = (drop) => shell.choice.cut.filter(([layer, head]) => !drop(layer, head));
  function toggle(layer, head) {
    const isOff = off().has(key(layer, head));
    const rest = without((l, h) => l === layer && h === head);
    change(isOff ? rest : [...rest, [layer, head]], { layer, head });
    shell.say(`${fpt.head(layer, head)} is ${isOff ? "on" : "off"}`);
  }
  function toggleLayer(layer) {
    const rest = without((l) => l === layer), allOff = shell.choice.cut.length - rest.length === fixed.heads.length;
    change(allOff ? rest : [...rest, ...fixed.heads.map((head) => [layer, head])], { layer });
    shell.say(`all heads of layer ${layer} are ${allOff ? "on" : "off"}`);
  }
  const back = (from, to) => {
    const left = shell.choice[from].slice(), cut = from === "past" ? left.pop() : left.shift();
    const kept = from === "past" ? [shell.choice.cut, ...shell.choice[to]] : [...shell.choice[to], shell.choice.cut];
    turn({ cut, [from]: left, [to]: kept.slice(from === "past" ? 0 : -fixed.n_past) });
  };

  // Controls.
  const controls = [];
  const add = (control, show) => { controls.push(() => show(control)); shell.bar.append(control.node); };
  const kinds = { zero: "nothing (zero)", mean: "its mean over training examples", resample: "its value on another example (resample)" };
  add(fpt.select("in place of a head that is off", fixed.kinds.map((kind) => [kind, kinds[kind]]), (kind) => {
    if (kind !== "zero" && shell.choice.cut.length) shell.say("running the training examples that stand in, once ...");
    turn({ kind });
  }), (one) => one.set(shell.choice.kind));
  if (fixed.n_examples > 1) {
    add(fpt.range("example", { min: 0, max: fixed.n_examples - 1 }, (example) => shell.choose({ example })),
      (one) => one.set(shell.choice.example));
  }
  add(fpt.button("undo", () => back("past", "future")), (one) => { one.node.disabled = !shell.choice.past.length; });
  add(fpt.button("redo", () => back("future", "past")), (one) => { one.node.disabled = !shell.choice.future.length; });
  add(fpt.button("all on", () => change([])), (one) => { one.node.disabled = !shell.choice.cut.length; });
  add(fpt.button("", () => toggleLayer(shell.choice.layer)), (one) => {
    const cut = off(), { layer } = shell.choice;
    one.node.textContent = `layer ${layer} ${fixed.heads.every((head) => cut.has(key(layer, head))) ? "on" : "off"}`;
  });
  add(fpt.button("compare with intact", () => shell.choose({ intact: !shell.choice.intact }, { asks: false })), (one) => {
    one.set(shell.choice.intact);
    one.node.disabled = !shell.choice.cut.length;
  });

  // The grid of heads.
  const moveTo = (layer, head) => {
    shell.choose({ layer, head }, { asks: false });
    describe(layer, head);
  };
  const grid = fpt.canvas("Grid of heads. Arrow keys move, space switches a head, r its whole layer.", {
    moved(dx, dy) {
      const step = (list, value, by) => list[Math.min(Math.max(list.indexOf(value) + by, 0), list.length - 1)];
      moveTo(step(fixed.layers, shell.choice.layer, dy), step(fixed.heads, shell.choice.head, dx));
    },
    entered() { toggle(shell.choice.layer, shell.choice.head); },
    hovered(x, y) {
      const at = headAt(x, y);
      grid.style.cursor = at ? "pointer" : "default";
      if (at && at.head !== null) describe(at.layer, at.head);
      else if (at) shell.say(`switch all heads of layer ${at.layer}`);
    },
    clicked(x, y) {
      const at = headAt(x, y);
      if (at && at.head !== null) toggle(at.layer, at.head);
      else if (at) toggleLayer(at.layer);
    },
  });
  grid.classList.add("fpt-grid");
  grid.addEventListener("keydown", (event) => {
    if (event.key === "r" && !event.ctrlKey && !event.metaKey) { toggleLayer(shell.choice.layer); event.preventDefault(); }
  });
  for (const event of ["focus", "blur"]) grid.addEventListener(event, () => drawGrid());
  shell.pane("", grid);

  const words = (layer, head) => Object.values(fixed.metrics)
    .map((metric) => `${metric.words} ${fpt.number(metric.values[fixed.layers.indexOf(layer)][fixed.heads.indexOf(head)])}`);
  const describe = (layer, head) =>
    shell.say([`${fpt.head(layer, head)} is ${off().has(key(layer, head)) ? "off" : "on"}`, ...words(layer, head)].join(", "));

  // The head, or the layer's name (head null), at a place of the canvas.
  function headAt(x, y) {
    const { left, top, width, height, gap } = state.layout;
    const l = Math.floor((y - top) / (height + gap)), h = Math.floor((x - left) / (width + gap));
    if (l < 0 || l >= fixed.layers.length || h >= fixed.heads.length) return null;
    return { layer: fixed.layers[l], head: x < left ? null : fixed.heads[h] };
  }

  function drawGrid() {
    const packed = tiles(), cut = shell.choice.intact ? new Set() : off();
    const { ink, muted, accent, blank, panel } = colours();
    if (packed && (state.drawnTiles !== packed || state.theme !== blank)) {
      state.mosaic = paint.mosaic(fpt.decode(packed.values), paint.table(fixed.scales.sequential, blank), state.mosaic || undefined);
      state.drawnTiles = packed;
      state.theme = blank;
    }
    const [, , rows, columns] = packed ? packed.values.shape : [1, 1, 1, 1];
    const gap = 6, left = 30, top = 16, foot = fixed.metrics.ablation ? 13 : 0;
    const width = Math.max(26, Math.min(84, Math.floor((gridWidth() - left) / fixed.heads.length) - gap));
    const side = Math.max(8, Math.min(width * 1.5, width * Math.max(rows / columns, 0.25))), height = HEAD_ROOM + side + foot;
    state.layout = { left, top, width, height, gap };
    const context = fpt.sized(grid, left + fixed.heads.length * (width + gap), top + fixed.layers.length * (height + gap));
    context.imageSmoothingEnabled = false;
    context.textBaseline = "middle";
    const text = (said, x, y, align, colour, font = "10px") => {
      context.font = `${font} system-ui, sans-serif`;
      context.textAlign = align;
      context.fillStyle = colour;
      context.fillText(said, x, y);
    };
    fixed.heads.forEach((head, h) => text(`${width < 40 ? "" : "head "}${head}`, left + h * (width + gap) + width / 2, 7, "center", muted, "600 10px"));
    fixed.layers.forEach((layer, l) => {
      const y = top + l * (height + gap);
      text(`L${layer}`, 2, y + HEAD_ROOM + side / 2, "left", muted, "600 11px");
      fixed.heads.forEach((head, h) => {
        const x = left + h * (width + gap), isOff = cut.has(key(layer, head)), { routing, ablation } = fixed.metrics;
        if (packed) {
          context.globalAlpha = isOff ? 0.2 : 1;
          context.drawImage(state.mosaic, h * columns, l * rows, columns, rows, x, y + HEAD_ROOM, width, side);
          context.globalAlpha = 1;
        }
        context.strokeStyle = muted;
        context.lineWidth = 0.5;
        context.strokeRect(x, y + HEAD_ROOM, width, side);
        if (isOff) strike(context, x, y + HEAD_ROOM, width, side, accent, panel, ink);
        if (routing) text(fpt.number(routing.values[l][h], 2), x + width / 2, y + 8, "center", ink);
        if (ablation) {
          const value = ablation.values[l][h], sign = value > 0 ? "−" : value < 0 ? "+" : "";
          const told = value === null ? "–" : `${sign}${fpt.number(Math.abs(value), 2)}`;
          text(`${width < 40 ? "" : "cut "}${told}`, x + width / 2, y + HEAD_ROOM + side + 8, "center", muted);
        }
        if (layer === shell.choice.layer && head === shell.choice.head) {
          context.setLineDash(grid.matches(":focus") ? [] : [3, 3]);
          paint.box(context, x - 2, y - 1, width + 4, height + 2, grid.matches(":focus") ? accent : muted, 2);
          context.setLineDash([]);
        }
      });
    });
    grid.dataset.drawn = [...cut].join(" ");
  }

  // A head that is off is faint, struck through, and says so.
  function strike(context, x, y, width, side, accent, panel, ink) {
    context.strokeStyle = accent;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + width, y + side);
    context.moveTo(x + width, y);
    context.lineTo(x, y + side);
    context.stroke();
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = panel;
    context.fillRect(x + width / 2 - 11, y + side / 2 - 7, 22, 14);
    context.fillStyle = ink;
    context.fillText("off", x + width / 2, y + side / 2);
  }

  // What becomes of it.
  const sums = fpt.element("table", { className: "fpt-totals" });
  const sumsNote = fpt.element("div", { className: "fpt-help" });
  const answersTitle = fpt.element("h4");
  const answers = fpt.element("table", { className: "fpt-bars fpt-answers" });
  const code = fpt.element("pre", { className: "fpt-code", tabIndex: 0, role: "region", "aria-label": "the same in Python" });
  const copy = fpt.button("copy Python", async () => {
    const text = shell.model.get("python");
    try {
      await navigator.clipboard.writeText(text);
      shell.say("copied");
    } catch {  // a page may not be allowed to; then the text lies ready to be copied
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      shell.say(document.execCommand("copy") ? "copied" : "the browser does not let this page copy: the text is selected");
    }
  });
  const results = shell.pane("", fpt.element("h4", {}, "Over the data set"), sums, sumsNote, answersTitle, answers,
    fpt.element("h4", { className: "fpt-gap" }, "The same in Python"), code, copy.node);
  results.classList.add("fpt-results");

  const row = (tag, ...cells) => fpt.element("tr", {}, ...cells.map((cell, i) => fpt.element(i && tag === "td" ? "td" : "th", {}, cell)));
  const percent = (share) => `${(100 * share).toFixed(1)} %`.replace("-", "−");
  const signed = (text) => (text.startsWith("−") || /^0?\.?0*( %)?$/.test(text) ? text : `+${text}`);

  function drawTotals() {
    const found = totals(), { intact, cut } = shell.choice, none = !found || !found.n;
    const side = intact || !cut.length ? 0 : 1;
    const line = (name, values, interval, words) => {
      if (none) return row("td", name, "…", "…", "");
      const change = side ? `${signed(words(values[1] - values[0]))} (${words(interval[0])} to ${words(interval[1])})` : "";
      return row("td", name, words(values[0]), words(values[side]), change);
    };
    sums.replaceChildren(
      row("th", "", "intact", side ? "now" : "now (intact)", "change, 95 % interval"),
      line("accuracy", found?.accuracy, found?.intervals?.[0], percent),
      line("loss (nats)", found?.loss, found?.intervals?.[1], (value) => fpt.number(value)),
    );
    sums.dataset.n = found ? String(found.n) : "";
    sumsNote.textContent = !found ? "This page does not hold the accuracy for these heads: open the notebook for it."
      : found.n < fixed.n ? `${found.n} of ${fixed.n} ${fixed.split} examples so far` : `all ${fixed.n} ${fixed.split} examples`;
  }

  function drawAnswers() {
    const prediction = shell.model.get("prediction"), { intact, cut } = shell.choice;
    const sides = ["intact", "without"].map((side) => Object.fromEntries(
      Object.entries(prediction[side]).map(([name, packed]) => [name, fpt.decode(packed).values])));
    const targets = fpt.decode(prediction.targets).values, now = sides[intact || !cut.length ? 0 : 1], before = sides[0];
    const n = targets.length, places = [...targets.keys()];
    const change = (i) => Math.abs(sides[1].right[i] - before.right[i]);
    const shown = n <= SHOWN_ANSWERS ? places : places.sort((a, b) => change(b) - change(a) || a - b).slice(0, SHOWN_ANSWERS).sort((a, b) => a - b);
    const count = (side) => targets.reduce((sum, target, i) => sum + (side.predicted[i] === target), 0);
    const were = now === before ? "" : ` (intact ${count(before)})`;
    answersTitle.textContent = `Example ${shell.choice.example}: ${count(now)} of ${n} answers right${were}`;
    const header = row("th", "", "right", "answers", "probability of the right class", "");
    answers.replaceChildren(header, ...shown.map((i) => {
      const right = now.predicted[i] === targets[i];
      const bar = fpt.element("span", { className: "fpt-share" }), tick = fpt.element("span", { className: "fpt-before" });
      bar.style.width = `${100 * now.right[i]}px`;
      tick.style.left = `${100 * before.right[i]}px`;
      const track = fpt.element("td", { className: "fpt-track" }, bar, ...(now === before ? [] : [tick]));
      const said = now === before ? fpt.number(now.right[i], 2) : `${fpt.number(before.right[i], 2)} → ${fpt.number(now.right[i], 2)}`;
      return fpt.element("tr", { className: right ? "" : "fpt-wrong" }, fpt.element("th", { scope: "row" }, fixed.answers[i]),
        fpt.element("td", {}, String(targets[i])), fpt.element("td", {}, `${now.predicted[i]} ${right ? "✓" : "✗"}`), track,
        fpt.element("td", {}, said));
    }));
    if (n > shown.length) answersTitle.textContent += `; the ${shown.length} most changed`;
    answers.dataset.right = String(count(now));
  }

  // Accuracy comes piece by piece: the next piece is asked for once the last one is drawn and nothing else was chosen.
  function askOn() {
    clearTimeout(state.next);
    const found = totals(), { n } = shell.choice;
    if (shell.model.get("notice")) return;
    const following = found ? (found.n < fixed.n ? found.next : null) : n === fixed.n ? null : fixed.n;
    if (following === null) return;
    if (state.mine && state.mine !== which()) {  // unless Python itself switched, the answer to the last click comes
      state.next = setTimeout(() => { state.mine = null; askOn(); }, 1000);
      return;
    }
    state.next = setTimeout(() => { if (shell.root.isConnected) shell.choose({ n: following }); }, PAUSE_MS);
  }

  const colours = () => ({
    ink: fpt.colour(shell.root, "--fpt-ink"), muted: fpt.colour(shell.root, "--fpt-muted"), accent: fpt.colour(shell.root, "--fpt-accent"),
    blank: fpt.colour(shell.root, "--fpt-unreachable"), panel: fpt.colour(shell.root, "--fpt-panel"),
  });
  const gridWidth = () => {
    const room = (shell.width || 900) - 24;
    return room > 820 ? room - 470 : room;
  };

  shell.help.textContent = "Click a head to switch it off or on, or its layer's name for the whole row; or move with the arrow keys, "
    + "space switches a head and r a row. In the bars a tick marks the intact model. "
    + (fixed.metrics.routing ? "Above a tile stands the head's routing score. " : "") + "Patterns are those of the intact model.";
  for (const trait of ["prediction", "totals", "tiles", "python"]) shell.on(`change:${trait}`, () => shell.redraw());
  return () => {
    for (const show of controls) show();
    drawGrid();
    drawTotals();
    drawAnswers();
    code.textContent = shell.model.get("python");
    askOn();
  };
}

const fptWidget = { render: (context) => fpt.render(context, headLab) };
export default fptWidget;
