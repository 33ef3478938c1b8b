// Strings of bits to flip, what the model answers, what one head reads, and by which edges the answer gets there.
const LETTER_ROOM = 86, GRAPH_TOP = 22;

function bitLab(shell) {
  const { fixed } = shell, n = fixed.n_values;
  const state = { cursor: 0, cells: new Map(), edges: [], chosenEdge: -1, pick: [0, 0] };
  const run = () => shell.model.get("run"), pattern = () => shell.model.get("pattern"), graph = () => shell.model.get("graph");
  const bits = () => shell.choice.bits;

  // Every change of the bits can be undone.
  const now = () => [shell.choice.example, shell.choice.bits];
  const remembered = () => [...shell.choice.past, now()].slice(-fixed.n_past);
  const change = (fields) => shell.choose({ draw: null, past: remembered(), ...fields });
  const put = (place, letter) => {
    state.put = place;
    change({ bits: bits().slice(0, place) + letter + bits().slice(place + 1) });
  };
  const brush = (place) => {
    const letter = bits()[place], masks = shell.choice.brush === "mask";
    put(place, masks ? (letter === "?" ? "1" : "?") : letter === "1" ? "0" : "1");
  };

  // Controls.
  const controls = [];
  const add = (control, show) => { controls.push(() => show(control)); shell.bar.append(control.node); };
  const toExample = (example) => change({ example, bits: fixed.examples[example] });
  add(fpt.range("example", { min: 0, max: fixed.examples.length - 1 }, toExample), (one) => {
    one.set(Math.max(shell.choice.example, 0));
    one.node.hidden = fixed.examples.length < 2;
  });
  add(fpt.button("next example", () => toExample((shell.choice.example + 1) % fixed.examples.length)), () => {});
  add(fpt.button("random bits", () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    if (fixed.pool.length) change({ example: -1, bits: fixed.pool[seed % fixed.pool.length] });
    else shell.choose({ draw: seed, past: remembered() });
  }), () => {});
  add(fpt.button("undo", () => {
    const past = shell.choice.past.slice(), [example, before] = past.pop();
    shell.choose({ draw: null, past, example, bits: before });
  }), (one) => { one.node.disabled = !shell.choice.past.length; });
  if (fixed.maskable) {
    add(fpt.select("a click", [["flip", "flips a bit"], ["mask", "masks a bit, or shows it"]], (brush_) =>
      shell.choose({ brush: brush_ }, { asks: false })), (one) => one.set(shell.choice.brush));
  }
  const headName = ([layer, head, score]) => fpt.head(layer, head) + (score === null ? "" : ` (routing score ${fpt.number(score, 2)})`);
  add(fpt.select("head", fixed.heads.map((one, i) => [i, headName(one)]), (i) =>
    chooseHead(fixed.heads[i][0], fixed.heads[i][1])),
  (one) => one.set(fixed.heads.findIndex(([l, h]) => l === shell.choice.layer && h === shell.choice.head)));
  const among = [["all", "all heads"], ...(fixed.n_top ? [["top", `the ${fixed.n_top} highest routing scores`]] : []), ["one", "the chosen head"]];
  add(fpt.select("graph of", among, (one) => shell.choose({ among: one === "one" ? fpt.head(shell.choice.layer, shell.choice.head) : one })),
    (one) => one.set(["all", "top"].includes(shell.choice.among) ? shell.choice.among : "one"));
  add(fpt.select("edges", fixed.edges.map((one) => [one, `the ${one} largest`]), (edges) => shell.choose({ edges })),
    (one) => one.set(shell.choice.edges));
  add(fpt.select("towards", [[-1, "all read-out tokens"], ...fixed.readout.map((token) => [token, fixed.names[token]])],
    (towards) => shell.choose({ towards })), (one) => one.set(shell.choice.towards));
  const legend = fpt.element("span", { className: "fpt-scale" });
  shell.bar.append(legend);

  function chooseHead(layer, head) {
    const alone = !["all", "top"].includes(shell.choice.among);
    shell.choose({ layer, head, ...(alone ? { among: fpt.head(layer, head) } : {}) });
  }

  // The strings. A token of many bits is a block of several rows.
  const bitCanvas = fpt.canvas("The strings of bits. Arrow keys move, space flips, m masks, 0 and 1 write.", {
    moved(dx, dy) {
      const here = state.cells.get(state.cursor), wanted = [here.column + dx, here.row + dy];
      const next = [...state.cells.entries()].find(([, one]) => one.column === wanted[0] && one.row === wanted[1]);
      if (next) { state.cursor = next[0]; sayBit(state.cursor); drawBits(); }
    },
    entered() { brush(state.cursor); },
    clicked(x, y) { const place = bitAt(x, y); if (place >= 0) { state.cursor = place; brush(place); } },
    hovered(x, y) {
      const place = bitAt(x, y), told = place < 0 ? answerAt(x, y) : -1;
      bitCanvas.style.cursor = place >= 0 ? "pointer" : "default";
      if (place >= 0) sayBit(place);
      else if (told >= 0) sayAnswer(told);
    },
  });
  bitCanvas.classList.add("fpt-bits");
  bitCanvas.addEventListener("keydown", (event) => {
    const letter = { 0: "0", 1: "1", m: fixed.maskable ? "?" : null }[event.key];
    if (letter && !event.ctrlKey && !event.metaKey) { put(state.cursor, letter); event.preventDefault(); }
  });
  for (const event of ["focus", "blur"]) bitCanvas.addEventListener(event, () => drawBits());
  const summary = fpt.element("h4", { className: "fpt-summary" });
  const bitPane = shell.pane("", summary, bitCanvas);

  const bitName = (place) => fixed.names[Math.floor(place / n)] + (n > 1 ? `, bit ${place % n}` : "");
  const sayBit = (place) => {
    const changed = shell.choice.example >= 0 && bits()[place] !== fixed.examples[shell.choice.example][place];
    shell.say(`${bitName(place)} is ${bits()[place] === "?" ? "masked" : bits()[place]}${changed ? ", changed" : ""}`);
  };
  const answerName = (i) => fixed.names[fixed.readout[Math.floor(i / fixed.n_answers)]] + (fixed.n_answers > 1 ? `, bit ${i % fixed.n_answers}` : "");
  const sayAnswer = (i) => {
    const { ones, decided } = state.answers, said = ones[i] > 0.5 ? 1 : 0;
    const truth = decided[i] < 0 ? "the bits shown decide no answer" : `the right answer is ${decided[i]}: ${said === decided[i] ? "right" : "wrong"}`;
    shell.say(`${answerName(i)}: the model answers ${said} with probability ${fpt.number(Math.max(ones[i], 1 - ones[i]))}; ${truth}`);
  };

  const nPlaces = Math.max(...fixed.position) + 1;
  // The size of a cell, and how many columns a token's block has, so that all fits and cells are large.
  function layout(width) {
    let best = null;
    const rowsOf = (columns) => Math.ceil(Math.max(n, fixed.n_answers) / columns);
    for (let columns = 1; columns <= n; columns++) {
      if (n % columns) continue;
      const gap = n > 1 ? 4 : 6, rows = rowsOf(columns), bands = fixed.groups.length + 2;
      const cell = Math.min(34, (width - LETTER_ROOM - gap * nPlaces) / (nPlaces * columns), (540 / bands - 8) / rows);
      if (!best || cell > best.cell) best = { columns, rows, cell: Math.max(cell, 2), gap };
    }
    return best;
  }

  function bitAt(x, y) {
    const { cell } = state.layout;
    for (const [place, one] of state.cells) {
      if (x >= one.x && x < one.x + cell && y >= one.y && y < one.y + cell) return place;
    }
    return -1;
  }
  function answerAt(x, y) {
    const { cell } = state.layout;
    return (state.answerCells || []).findIndex((one) =>
      x >= one.x && x < one.x + cell && [one.right, one.said].some((top) => y >= top && y < top + cell));
  }

  function drawBits() {
    const { ones, decided } = state.answers, { ink, muted, accent, hatch, panel } = colours();
    const { columns, rows, cell, gap } = (state.layout = layout(shell.width ? shell.width - 24 : 900));
    const band = rows * cell + 8, block = columns * cell + gap, under = cell >= 20 ? 16 : 4;
    const answersTop = fixed.groups.length * band + 10, bands = answersTop + 2 * band + under;
    const context = fpt.sized(bitCanvas, Math.ceil(LETTER_ROOM + nPlaces * block + 2), Math.ceil(bands));
    const base = shell.choice.example >= 0 ? fixed.examples[shell.choice.example] : null;
    context.textBaseline = "middle";
    const box = (x, y, letter, { marked = false, soft = false } = {}) => {
      context.fillStyle = letter === "1" ? "#0072b2" : panel;
      context.fillRect(x, y, cell - 1, cell - 1);
      if (letter === "?") paint.hatch(context, x, y, cell - 1, cell - 1, hatch);
      context.strokeStyle = soft ? hatch : muted;
      context.lineWidth = cell < 8 ? 0.4 : 1;
      context.strokeRect(x + 0.5, y + 0.5, cell - 2, cell - 2);
      if (cell >= 14) {
        context.font = `${Math.min(15, cell * 0.5)}px system-ui, sans-serif`;
        context.textAlign = "center";
        context.fillStyle = letter === "1" ? "#fff" : ink;
        context.fillText(letter, x + cell / 2 - 0.5, y + cell / 2 + 0.5);
      }
      if (marked) {  // a corner, which says that it was changed
        context.fillStyle = accent;
        context.beginPath();
        const size = Math.max(cell / 3, 3);
        context.moveTo(x + cell - 1 - size, y);
        context.lineTo(x + cell - 1, y);
        context.lineTo(x + cell - 1, y + size);
        context.fill();
      }
    };
    const label = (text, y) => {
      context.font = "12px system-ui, sans-serif";
      context.textAlign = "right";
      context.fillStyle = ink;
      context.fillText(paint.fitted(context, text, LETTER_ROOM - 10), LETTER_ROOM - 8, y + (rows * cell) / 2);
    };
    fixed.groups.forEach((group, g) => label(`string ${group}`, g * band));
    label("right answer", answersTop);
    label("predicted", answersTop + band);
    state.cells.clear();
    fixed.names.forEach((_name, token) => {
      for (let v = 0; v < n; v++) {
        const place = token * n + v, column = fixed.position[token] * columns + (v % columns);
        const row = fixed.group[token] * rows + Math.floor(v / columns);
        const x = LETTER_ROOM + fixed.position[token] * block + (v % columns) * cell;
        const y = fixed.group[token] * band + Math.floor(v / columns) * cell;
        state.cells.set(place, { x, y, column, row });
        box(x, y, bits()[place], { marked: base !== null && base[place] !== bits()[place] });
      }
    });
    const here = state.cells.get(state.cursor);
    if (bitCanvas.matches(":focus")) paint.box(context, here.x - 2, here.y - 2, cell + 3, cell + 3, accent, 2);
    state.answerCells = [];
    fixed.readout.forEach((token, r) => {
      for (let v = 0; v < fixed.n_answers; v++) {
        const i = r * fixed.n_answers + v, x = LETTER_ROOM + fixed.position[token] * block + (v % columns) * cell;
        const down = Math.floor(v / columns) * cell, right = answersTop + down, said = answersTop + band + down;
        state.answerCells.push({ x, right, said });
        const answer = ones[i] > 0.5 ? 1 : 0, wrong = decided[i] >= 0 && answer !== decided[i];
        box(x, right, decided[i] < 0 ? "?" : String(decided[i]), { soft: true });
        box(x, said, String(answer));
        if (wrong) cross(context, x, said, cell, accent);
        if (cell < 20) continue;
        context.font = `${cell < 30 ? 9 : 11}px system-ui, sans-serif`;
        context.textAlign = "center";
        context.fillStyle = ink;
        const sign = decided[i] < 0 ? "" : wrong ? " ✗" : " ✓";
        context.fillText(fpt.number(Math.max(ones[i], 1 - ones[i]), 2) + (cell < 30 ? "" : sign), x + cell / 2 - 0.5, said + cell + 8);
      }
    });
    bitCanvas.dataset.drawn = bits();
  }

  // A wrong answer is boxed, and large enough a cell is struck through.
  function cross(context, x, y, cell, accent) {
    paint.box(context, x - 1, y - 1, cell + 1, cell + 1, accent, cell < 8 ? 1.2 : 2.5);
    if (cell < 20 && cell >= 5) {
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + cell - 1, y + cell - 1);
      context.stroke();
    }
  }

  // The chosen head.
  const headTitle = fpt.element("h4");
  const headCanvas = fpt.canvas("The chosen head's attention. Arrow keys move from weight to weight.", {
    moved(dx, dy) {
      if (!state.weights) return;
      const [rows, columns] = state.weights.shape;
      state.pick = [Math.min(Math.max(state.pick[0] + dy, 0), rows - 1), Math.min(Math.max(state.pick[1] + dx, 0), columns - 1)];
      sayWeight(state.pick);
      drawPattern();
    },
    hovered(x, y) { const at = state.places && state.places.at(x, y); if (at) { state.pick = at; sayWeight(at); } },
  });
  headCanvas.classList.add("fpt-one");
  for (const event of ["focus", "blur"]) headCanvas.addEventListener(event, () => drawPattern());
  const headPane = shell.pane("", headTitle, headCanvas);
  const weight = (r, c) => state.weights.values[r * state.weights.shape[1] + c];
  const sayWeight = ([r, c]) => {
    const { labels } = pattern(), value = weight(r, c);
    shell.say(`${fpt.head(shell.choice.layer, shell.choice.head)}: ${labels[r]} reads ${labels[c]}, ${Number.isFinite(value) ? `weight ${fpt.number(value, 4)}` : "not seen"}`);
  };

  function drawPattern() {
    const shown = pattern(), name = fpt.head(shell.choice.layer, shell.choice.head);
    headCanvas.hidden = !shown;
    if (!shown) { headTitle.textContent = `${name}: this page does not hold its pattern for these bits`; return; }
    const score = shown.score === null ? "" : `, routing score ${fpt.number(shown.score, 2)} on these bits`;
    headTitle.textContent = `Head ${name}${score}`;
    headPane.style.maxWidth = `${paneWidth() + 10}px`;
    state.weights = fpt.decode(shown.values);
    const { ink, accent, hatch } = colours(), [rows, columns] = state.weights.shape;
    state.places = paint.pattern(headCanvas, {
      rows, columns, valueAt: weight, rowLabels: shown.labels, columnLabels: shown.labels, scale: SCALE, table: table(), ink,
      accent, hatch, size: paneWidth(), boxed: shown.needs, chosen: headCanvas.matches(":focus") ? state.pick : null,
      ahead: fixed.causal ? (r, c) => c > r : null,
    });
    headCanvas.dataset.drawn = name;
  }

  // The graph: tokens down, layers across.
  const graphTitle = fpt.element("h4");
  const graphCanvas = fpt.canvas("Graph of the largest attention edges. Arrow keys go from edge to edge, Enter shows its head.", {
    moved(dx, dy) {
      if (!state.edges.length) return;
      state.chosenEdge = (Math.max(state.chosenEdge, dx + dy > 0 ? -1 : 0) + dx + dy + state.edges.length) % state.edges.length;
      sayEdge(state.chosenEdge);
      drawGraph();
    },
    entered() { chooseEdge(state.chosenEdge); },
    hovered(x, y) {
      const i = edgeAt(x, y);
      graphCanvas.style.cursor = i >= 0 ? "pointer" : "default";
      if (i !== state.chosenEdge) { state.chosenEdge = i; drawGraph(); }
      if (i >= 0) sayEdge(i);
    },
    left() { state.chosenEdge = -1; drawGraph(); },
    clicked(x, y) {
      const place = state.graphPlaces, token = place && x > place.right ? Math.floor((y - GRAPH_TOP) / place.step) : -1;
      if (fixed.readout.includes(token)) shell.choose({ towards: token === shell.choice.towards ? -1 : token });
      else chooseEdge(edgeAt(x, y));
    },
  });
  graphCanvas.classList.add("fpt-graph");
  const graphPane = shell.pane("", graphTitle, graphCanvas);
  const chooseEdge = (i) => { const edge = state.edges[i]; if (edge) chooseHead(edge[0], edge[1]); };
  const tokenName = (token) => fixed.names[token] + (n === 1 ? `=${bits()[token]}` : "");
  const sayEdge = (i) => {
    const [layer, head, key, query, value] = state.edges[i];
    shell.say(`${fpt.head(layer, head)}: ${tokenName(query)} reads ${tokenName(key)}, weight ${fpt.number(value)}`);
  };
  function edgeAt(x, y) {
    const place = state.graphPlaces;
    let best = -1, least = 6;
    state.edges.forEach(([layer, , key, query], i) => {
      const share = (x - place.x(layer)) / (place.x(layer + 1) - place.x(layer));
      if (share < 0 || share > 1) return;
      let low = 0, high = 1;  // x of the curve rises with t
      for (let k = 0; k < 16; k++) {
        const t = (low + high) / 2;
        if (1.5 * t * (1 - t) * (1 - t) + 1.5 * t * t * (1 - t) + t * t * t < share) low = t; else high = t;
      }
      const t = low, rise = 3 * t * t - 2 * t * t * t, off = Math.abs(place.y(key) + (place.y(query) - place.y(key)) * rise - y);
      if (off < least) { least = off; best = i; }
    });
    return best;
  }

  function drawGraph() {
    const shown = graph();
    graphCanvas.hidden = !shown;
    if (!shown) { graphTitle.textContent = "This page does not hold the graph for these bits"; return; }
    state.edges = shown.edges;
    const goal = shell.choice.towards < 0 ? "the read-out tokens" : fixed.names[shell.choice.towards];
    const of = { all: "", top: ` (of ${fixed.n_top} heads)` }[shell.choice.among] ?? ` (of ${shell.choice.among})`;
    graphTitle.textContent = `The ${state.edges.length} largest edges to ${goal}${of}`;
    const { ink, muted, accent, hatch, line } = colours(), tokens = fixed.names.length;
    const width = paneWidth();
    graphPane.style.width = `${width}px`;
    const step = Math.max(5, Math.min(30, 560 / tokens)), left = 58, right = width - 66;
    const context = fpt.sized(graphCanvas, width, GRAPH_TOP + step * tokens + 4);
    const place = (state.graphPlaces = {
      step, right, x: (layer) => left + ((right - left) * layer) / fixed.n_layers, y: (token) => GRAPH_TOP + (token + 0.5) * step,
    });
    context.textBaseline = "middle";
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillStyle = muted;
    for (let layer = 0; layer < fixed.n_layers; layer += paint.stride(fixed.n_layers, (right - left) / fixed.n_layers, 24)) {
      context.fillText(`L${layer}`, (place.x(layer) + place.x(layer + 1)) / 2, 9);
    }
    context.fillStyle = hatch;
    for (let token = 0; token < tokens; token++) {  // each token's residual stream
      context.fillRect(left, place.y(token), right - left, 0.4);
      for (let layer = 0; layer <= fixed.n_layers; layer++) context.fillRect(place.x(layer) - 1, place.y(token) - 1, 2, 2);
    }
    const { choice } = shell;
    [...state.edges.keys()].reverse().forEach((i) => {
      const [layer, head, key, query, value] = state.edges[i];
      const mine = layer === choice.layer && head === choice.head;
      context.strokeStyle = mine || i === state.chosenEdge ? accent : line;
      context.globalAlpha = i === state.chosenEdge ? 1 : 0.4 + 0.6 * value;
      context.lineWidth = 0.75 + 5 * value + (i === state.chosenEdge ? 1.5 : 0);
      context.setLineDash(mine ? [7, 3] : []);
      context.beginPath();
      const middle = (place.x(layer) + place.x(layer + 1)) / 2;
      context.moveTo(place.x(layer), place.y(key));
      context.bezierCurveTo(middle, place.y(key), middle, place.y(query), place.x(layer + 1), place.y(query));
      context.stroke();
    });
    context.globalAlpha = 1;
    context.setLineDash([]);
    const every = paint.stride(tokens, step);
    for (let token = 0; token < tokens; token++) {
      context.font = `${token === choice.towards ? "700 " : ""}11px system-ui, sans-serif`;
      if (token % every && token !== choice.towards) continue;
      context.fillStyle = ink;
      context.textAlign = "right";
      context.fillText(tokenName(token), left - 6, place.y(token));
      const r = fixed.readout.indexOf(token);
      if (r < 0) continue;
      context.textAlign = "left";
      const answer = fixed.n_answers === 1 ? ` → ${state.answers.ones[r] > 0.5 ? 1 : 0}` : "";
      context.fillText(`${fixed.names[token]}${answer}`, right + 6, place.y(token));
    }
    graphCanvas.dataset.drawn = String(state.edges.length);
  }

  const SCALE = { low: 0, high: 1 };
  const colours = () => ({
    ink: fpt.colour(shell.root, "--fpt-ink"), muted: fpt.colour(shell.root, "--fpt-muted"), accent: fpt.colour(shell.root, "--fpt-accent"),
    blank: fpt.colour(shell.root, "--fpt-unreachable"), hatch: fpt.colour(shell.root, "--fpt-hatch"), panel: fpt.colour(shell.root, "--fpt-panel"), line: fpt.colour(shell.root, "--fpt-strand"),
  });
  const table = () => paint.table(fixed.scales.sequential, colours().blank);
  // Beside the strings where there is room for all three, else below them.
  const paneWidth = () => {
    const room = (shell.width || 900) - 24, beside = room - bitCanvas.logicalWidth - 40;
    bitPane.style.flexBasis = beside >= 840 ? `${bitCanvas.logicalWidth}px` : "100%";
    if (beside >= 840) return Math.min(520, Math.floor(beside / 2));
    return room > 760 ? Math.min(560, Math.floor((room - 20) / 2)) : room;
  };
  const say = () => {
    const { ones, decided } = state.answers, known = decided.filter((one) => one >= 0).length;
    const right = decided.reduce((sum, one, i) => sum + (one >= 0 && (ones[i] > 0.5 ? 1 : 0) === one), 0);
    const open = decided.length - known;
    state.told = `${right} of ${known} answers right${open ? `; ${open} that the bits shown do not decide` : ""}`;
    summary.textContent = state.told;
    if (state.put !== undefined) { sayBit(state.put); shell.say(`${shell.status.textContent}; ${state.told}`); }
    state.put = undefined;
  };

  shell.help.textContent = "Click a bit to flip it, or use the arrow keys and space"
    + (fixed.maskable ? "; m masks it. " : ". ") + "A corner marks a changed bit, ✗ and a box a wrong answer. In the graph a row is a token through the layers, an edge "
    + "ends at the token that reads; edges of the chosen head are dashed. Attention is not by itself an explanation.";
  for (const trait of ["run", "pattern", "graph"]) shell.on(`change:${trait}`, () => shell.redraw());
  return () => {
    for (const show of controls) show();
    state.answers = { ones: fpt.decode(run().ones).values, decided: fpt.decode(run().decided).values };
    paint.scale(legend, SCALE, table(), "weight");
    say();
    drawBits();
    drawPattern();
    drawGraph();
  };
}

const fptWidget = { render: (context) => fpt.render(context, bitLab) };
export default fptWidget;
