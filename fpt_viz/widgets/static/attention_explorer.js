// All heads at a glance, and one of them with its tokens.
const BAR_HEIGHT = 15;

function attentionExplorer(shell) {
  const { fixed } = shell;
  const state = { mosaic: null, drawnTiles: null, hovered: null, cell: [0, 0] };
  const tiles = () => shell.model.get("tiles"), detail = () => shell.model.get("detail");

  // What was measured of the heads on the side that is shown; of a difference nothing was.
  const metrics = () => fixed.metrics[shell.choice.side] || {};

  const order = () => {
    const { sort, least } = shell.choice, all = [];
    fixed.layers.forEach((layer, l) => fixed.heads.forEach((head, h) => all.push({ l, h, layer, head })));
    const metric = metrics()[sort];
    if (!metric) return { shown: all, sorted: false };
    const value = ({ l, h }) => metric.values[l][h] ?? -Infinity;  // not measured: last, and below any threshold
    const kept = all.filter((one) => least === null || value(one) >= least);
    return { shown: kept.sort((a, b) => (value(b) > value(a) ? 1 : value(b) < value(a) ? -1 : 0)), sorted: true };
  };

  // Controls.
  const choose = (fields, options) => shell.choose(fields, options);
  const controls = [];
  const add = (control, show) => { controls.push(() => show(control)); shell.bar.append(control.node); };
  if (fixed.sides.length > 1) add(fpt.select("show", fixed.sides, (side) => choose({ side })), (one) => one.set(shell.choice.side));
  if (fixed.n_examples > 0 && fixed.has_mean) {
    add(fpt.check("mean over examples", (on) => choose({ example: on ? -1 : 0, zoom: null, query: -1 })),
      (one) => one.set(shell.choice.example < 0));
  }
  if (fixed.n_examples > 1) {
    add(fpt.range("example", { min: 0, max: fixed.n_examples - 1 }, (example) => choose({ example, zoom: null, query: -1 })),
      (one) => { one.set(Math.max(shell.choice.example, 0)); one.control.disabled = shell.choice.example < 0; });
  }
  const sorts = [["place", "layer and head"], ...Object.entries(fixed.metrics.a).map(([name, { words }]) => [name, words])];
  add(fpt.select("sort heads by", sorts, (sort) => choose({ sort }, { asks: false })), (one) => one.set(shell.choice.sort));
  add(fpt.quantity("at least", { min: -1000, max: 1000, empty: "all" }, (least) => choose({ least }, { asks: false })),
    (one) => { one.set(shell.choice.least); one.control.disabled = shell.choice.sort === "place"; });
  add(fpt.select("one head as", [["pattern", "pattern"], ["lines", "lines"]], (view) => choose({ view }, { asks: false })),
    (one) => one.set(shell.choice.view));
  add(fpt.select("scale to", [[0, "the largest weight"], [0.1, ".10"], [0.25, ".25"], [0.5, ".50"], [1, "1"]], (top) => choose({ top })),
    (one) => one.set(shell.choice.top));
  const legend = fpt.element("span", { className: "fpt-scale" });
  shell.bar.append(legend);

  // The grid of heads.
  const index = (l, h) => `${l},${h}`;
  const placed = new Map();
  const grid = fpt.canvas("Grid of heads. Arrow keys choose a head.", {
    moved(dx, dy) {
      const { shown, nColumns } = state.layout;
      const now = shown.findIndex((one) => one.layer === shell.choice.layer && one.head === shell.choice.head);
      const next = shown[Math.min(Math.max(now + dx + dy * nColumns, 0), shown.length - 1)];
      if (next) { chooseHead(next); describe(next); }
    },
    hovered(x, y) {
      const one = headAt(x, y);
      state.hovered = one;
      grid.style.cursor = one ? "pointer" : "default";
      if (one) hoverTile(one, x, y);
    },
    left() { state.hovered = null; },
    clicked(x, y) { const one = headAt(x, y); if (one) { chooseHead(one); describe(one); } },
  });
  grid.classList.add("fpt-grid");
  const gridPane = shell.pane("", grid);
  const chooseHead = ({ layer, head }) => choose({ layer, head });

  function headAt(x, y) {
    for (const [, one] of placed) {
      if (x >= one.x && x < one.x + one.width && y >= one.y && y < one.y + one.height) return one;
    }
    return null;
  }

  const words = ({ l, h }) => Object.values(metrics())
    .map((metric) => `${metric.words} ${fpt.number(metric.values[l][h])}`).join(", ");
  const describe = (one) => shell.say(`${fpt.head(one.layer, one.head)}: ${words(one)}`);

  // The weight under the pointer: at once as its 8 bits say, then exactly as Python says.
  function hoverTile(one, x, y) {
    const packed = tiles(), [, , nRows, nColumns] = packed.values.shape;
    const c = Math.floor((x - one.x) / one.width * nColumns), r = Math.floor((y - one.y - BAR_HEIGHT) / one.side_height * nRows);
    if (r < 0 || r >= nRows || c < 0 || c >= nColumns) { describe(one); return; }
    const { values } = state.tiles, [, nHeads] = packed.values.shape;
    const entry = values[((one.l * nHeads + one.h) * nRows + r) * nColumns + c];
    const place = `${packed.row_labels[r]} reads ${packed.column_labels[c]}`;
    const { low, high } = packed.scale, near = low + entry / 254 * (high - low);
    const unit = packed.bin > 1 ? ` (largest of ${packed.bin} x ${packed.bin})` : "";
    const say = (text) => shell.say(`${fpt.head(one.layer, one.head)}: ${place}, ${text}${unit}; ${words(one)}`);
    if (entry === paint.BLANK) { say("not seen"); return; }
    const end = shell.choice.top ? (entry === 254 ? "at least" : entry === 0 && low < 0 ? "at most" : "") : "";
    say(`${end || "about"} ${fpt.number(near, 2)}`);
    const asked = { ask: "weight", l: one.l, h: one.h, r, c };
    shell.ask(asked, ({ weight }) => { if (state.hovered === one || grid.matches(":focus")) say(`weight ${fpt.number(weight, 4)}`); });
  }

  function drawGrid() {
    const packed = tiles(), started = performance.now();
    const fresh = state.drawnTiles !== packed || state.theme !== colours().blank;
    if (fresh) {
      state.tiles = fpt.decode(packed.values);
      state.theme = colours().blank;
      state.mosaic = paint.mosaic(state.tiles, table(packed.scale), state.mosaic || undefined);
      state.drawnTiles = packed;
    }
    const [, nHeads, nRows, nKeys] = packed.values.shape;
    const { shown, sorted } = order(), available = Math.max(gridWidth(), 240);
    const nColumns = nHeads, gap = 6, left = sorted ? 0 : 26, foot = metrics().ablation ? 13 : 0;
    const width = Math.max(26, Math.min(110, Math.floor((available - left) / nColumns) - gap));
    const sideHeight = Math.max(8, Math.min(width * 1.5, width * Math.max(nRows / nKeys, 0.25)));
    const height = BAR_HEIGHT + sideHeight + foot;
    const nLines = Math.ceil(shown.length / nColumns), top = sorted ? 0 : 16;
    const context = fpt.sized(grid, left + nColumns * (width + gap), top + Math.max(nLines, 1) * (height + gap));
    const { ink, muted, accent } = colours();
    context.imageSmoothingEnabled = false;
    context.textBaseline = "middle";
    placed.clear();
    shown.forEach((one, i) => {
      const x = left + (i % nColumns) * (width + gap), y = top + Math.floor(i / nColumns) * (height + gap);
      placed.set(index(one.l, one.h), { ...one, x, y, width, height, side_height: sideHeight });
      context.drawImage(state.mosaic, one.h * nKeys, one.l * nRows, nKeys, nRows, x, y + BAR_HEIGHT, width, sideHeight);
      context.strokeStyle = muted;
      context.lineWidth = 0.5;
      context.strokeRect(x, y + BAR_HEIGHT, width, sideHeight);
      caption(context, one, { x, y, width, sideHeight, ink, muted, sorted });
      if (one.layer === shell.choice.layer && one.head === shell.choice.head) {
        paint.box(context, x - 2, y - 1, width + 4, height + 2, accent, 2);
      }
    });
    context.fillStyle = muted;
    context.font = "600 10px system-ui, sans-serif";
    if (!shown.length) context.fillText("no head reaches that", left + 4, top + 12);
    if (!sorted) {
      context.textAlign = "center";
      fixed.heads.forEach((head, h) => context.fillText(`head ${head}`.slice(width < 40 ? 5 : 0), left + h * (width + gap) + width / 2, 7));
      context.textAlign = "left";
      fixed.layers.forEach((layer, l) => context.fillText(`L${layer}`, 2, top + l * (height + gap) + BAR_HEIGHT + sideHeight / 2));
    }
    state.layout = { shown, nColumns };
    gridPane.dataset.drawn = String(shown.length);
    grid.dataset.painted = String(state.painted = (state.painted || 0) + (fresh ? 1 : 0));  // for tests and benchmarks
    grid.dataset.ms = (performance.now() - started).toFixed(2);
  }

  // Above a tile its name and routing score, below it what cutting the head costs.
  function caption(context, one, { x, y, width, sideHeight, ink, muted, sorted }) {
    const { routing, ablation } = metrics();
    context.font = `${width < 40 ? 8.5 : 10}px system-ui, sans-serif`;
    context.textAlign = "left";
    context.fillStyle = muted;
    if (sorted || width >= 48) context.fillText(fpt.head(one.layer, one.head), x, y + 8);
    context.fillStyle = ink;
    if (routing) {
      context.textAlign = sorted || width >= 48 ? "right" : "center";
      if (!sorted || width >= 48) context.fillText(fpt.number(routing.values[one.l][one.h], 2), x + (context.textAlign === "right" ? width : width / 2), y + 8);
    }
    if (ablation) {
      const value = ablation.values[one.l][one.h];
      context.textAlign = "center";
      context.fillStyle = Math.abs(value ?? 0) >= 0.005 ? ink : muted;
      const sign = value > 0 ? "−" : value < 0 ? "+" : "";
      const told = value === null ? "–" : `${sign}${fpt.number(Math.abs(value), 2)}`;
      context.fillText(`${width < 40 ? "" : "cut "}${told}`, x + width / 2, y + BAR_HEIGHT + sideHeight + 8);
    }
  }

  // One head.
  const one = fpt.canvas("One head's attention. Arrow keys move from weight to weight; Enter keeps the query.", {
    moved(dx, dy) {
      const d = state.d;
      if (shell.choice.view === "lines") { chooseQuery(Math.min(Math.max(shell.choice.query + dy, 0), d.queries.length - 1)); return; }
      const [rows, columns] = d.values.shape;
      state.cell = [Math.min(Math.max(state.cell[0] + dy, 0), rows - 1), Math.min(Math.max(state.cell[1] + dx, 0), columns - 1)];
      sayCell(state.cell);
      drawOne();
    },
    entered() { chooseQuery(state.cell[0] === shell.choice.query ? -1 : state.cell[0]); },
    hovered(x, y) {
      const found = state.places && state.places.at(x, y);
      if (!found) return;
      if (shell.choice.view === "pattern") { state.cell = found; sayCell(found); }
      else if (found.query >= 0) sayRow(found.query);
    },
    clicked(x, y) {
      if (state.dragged) { state.dragged = false; return; }
      const found = state.places && state.places.at(x, y);
      if (!found) return;
      const query = shell.choice.view === "pattern" ? found[0] : found.query;
      if (query >= 0) chooseQuery(query === shell.choice.query ? -1 : query);
    },
  });
  one.classList.add("fpt-one");
  const title = fpt.element("h4");
  const back = fpt.button("whole pattern", () => choose({ zoom: null, query: -1 }));
  const onePane = shell.pane("", title, one, back.node);
  const chooseQuery = (query) => choose({ query }, { asks: false });

  const weight = (r, c) => state.one.values[r * state.one.shape[1] + c];
  function sayCell([r, c]) {
    const d = state.d, value = weight(r, c);
    const said = Number.isFinite(value) ? `${d.exact ? "weight" : "about"} ${fpt.number(value, d.exact ? 4 : 2)}` : "not seen";
    shell.say(`${fpt.head(shell.choice.layer, shell.choice.head)}: ${d.row_labels[r]} reads ${d.column_labels[c]}, ${said}`);
  }
  function sayRow(r) {
    const d = state.d, [, n] = state.one.shape;
    const found = [...Array(n).keys()].filter((c) => Number.isFinite(weight(r, c))).sort((a, b) => weight(r, b) - weight(r, a));
    shell.say(`${d.row_labels[r]} reads ${found.slice(0, 4).map((c) => `${d.column_labels[c]} ${fpt.number(weight(r, c))}`).join(", ")}`);
  }

  function drawOne() {
    const d = detail() || fromTiles(), { ink, muted, accent, hatch } = colours(), { scale } = tiles();
    state.d = d;
    state.one = fpt.decode(d.values);
    const [rows, columns] = d.values.shape, size = Math.max(260, Math.min(520, oneWidth()));
    const words_ = d.bin > 1 ? `; each cell the largest of ${d.bin} x ${d.bin} weights, drag over a part (or press z) to see it whole` : "";
    title.textContent = `${fpt.head(shell.choice.layer, shell.choice.head)}${d.exact ? "" : " (to 8 bits)"}${words_}`;
    back.node.hidden = !shell.choice.zoom;
    const common = { scale, table: table(scale), ink, muted, accent, hatch, size };
    if (shell.choice.view === "lines" && d.bin === 1) {
      state.places = paint.lines(one, {
        ...common, tokens: d.column_labels, queries: d.queries, valueAt: weight, chosen: shell.choice.query, least: 0.02 * scale.high,
      });
    } else {
      state.places = paint.pattern(one, {
        ...common, rows, columns, valueAt: weight, rowLabels: d.row_labels, columnLabels: d.column_labels,
        boxed: d.needs, chosen: one.matches(":focus") ? state.cell : [shell.choice.query, -1],
        ahead: fixed.causal ? (r, c) => d.keys[c] > d.query_tokens[r] : null,
      });
    }
    one.dataset.drawn = `${shell.choice.layer},${shell.choice.head},${shell.choice.view}`;
  }

  // Where the exact weights are not at hand, what the tile says.
  function fromTiles() {
    const packed = tiles(), [, nHeads, rows, columns] = packed.values.shape, { low, high } = packed.scale;
    const l = fixed.layers.indexOf(shell.choice.layer), h = fixed.heads.indexOf(shell.choice.head);
    const start = (l * nHeads + h) * rows * columns, found = new Float32Array(rows * columns);
    const values = fpt.decode(packed.values).values;
    for (let i = 0; i < found.length; i++) found[i] = values[start + i] === paint.BLANK ? NaN : low + values[start + i] / 254 * (high - low);
    return { ...packed, values: { shape: [rows, columns], type: "Float32Array", data: new DataView(found.buffer) }, exact: false };
  }

  // Dragging over a binned pattern asks for that part of it.
  let from = null;
  one.addEventListener("pointerdown", (event) => { from = [event.offsetX, event.offsetY]; });
  one.addEventListener("pointerup", (event) => {
    const d = detail();
    if (!from || !d || d.bin === 1 || !state.places) return;
    const scale = one.logicalWidth / one.getBoundingClientRect().width;
    const [a, b] = [from, [event.offsetX, event.offsetY]].map(([x, y]) => state.places.at(x * scale, y * scale));
    from = null;
    if (!a || !b || (a[0] === b[0] && a[1] === b[1])) return;
    const bounds = [0, 1].flatMap((axis) => [Math.min(a[axis], b[axis]) * d.bin, (Math.max(a[axis], b[axis]) + 1) * d.bin]);
    state.dragged = true;
    choose({ zoom: bounds.map((one, i) => one + d.start[i < 2 ? 0 : 1]), query: -1 });
  });
  // The same by keyboard: z shows the tokens around the cell, Escape all of them.
  one.addEventListener("keydown", ({ key }) => {
    const d = detail();
    if (key === "Escape" && shell.choice.zoom) choose({ zoom: null, query: -1 });
    if (key !== "z" || !d || d.bin === 1) return;
    const around = state.cell.map((cell, axis) => d.start[axis] + cell * d.bin);
    choose({ zoom: around.flatMap((token) => [Math.max(token - 64, 0), token + 64]), query: -1 });
  });
  one.addEventListener("focus", () => drawOne());
  one.addEventListener("blur", () => drawOne());

  const colours = () => ({
    ink: fpt.colour(shell.root, "--fpt-ink"), muted: fpt.colour(shell.root, "--fpt-muted"),
    accent: fpt.colour(shell.root, "--fpt-accent"), blank: fpt.colour(shell.root, "--fpt-unreachable"),
    hatch: fpt.colour(shell.root, "--fpt-hatch"),
  });
  const table = ({ low }) => paint.table(fixed.scales[low < 0 ? "diverging" : "sequential"], colours().blank);
  const wide = () => (shell.width || 900) - 20 > 760;
  const gridWidth = () => wide() ? Math.floor(((shell.width || 900) - 40) * 0.6) : (shell.width || 600) - 24;
  const oneWidth = () => wide() ? Math.floor(((shell.width || 900) - 40) * 0.38) : (shell.width || 600) - 24;

  shell.help.textContent = "Click a head, or move with the arrow keys. Numbers on a tile: routing score above, fall in accuracy "
    + "when the head is cut below, where they were measured. Attention is not by itself an explanation.";
  for (const trait of ["tiles", "detail"]) shell.on(`change:${trait}`, () => shell.redraw());
  return () => {
    for (const show of controls) show();
    const { scale } = tiles();
    paint.scale(legend, scale, table(scale), scale.low < 0 ? "difference of weights" : "weight");
    drawGrid();
    drawOne();
  };
}

const fptWidget = { render: (context) => fpt.render(context, attentionExplorer) };
export default fptWidget;
