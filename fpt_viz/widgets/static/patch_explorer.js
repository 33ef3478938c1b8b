// An image and its patches: who reads what, and what covering a patch does to the answer.
function patchExplorer(shell) {
  const { fixed } = shell;
  const images = fpt.decode(fixed.images);
  const [height, width] = fixed.size, boxes = fixed.boxes;
  const state = { cursor: shell.choice.query, painted: null, heads: [] };
  const choose = (fields, options) => shell.choose(fields, options);
  const nKeys = fixed.labels.length;
  const colour = (name) => fpt.colour(shell.root, name);

  // Controls.
  const controls = [];
  const add = (control, show) => { controls.push(() => show(control)); shell.bar.append(control.node); };
  if (fixed.n_examples > 1) {
    add(fpt.range("image", { min: 0, max: fixed.n_examples - 1 }, (example) => choose({ example, occluded: [] })),
      (one) => one.set(shell.choice.example));
  }
  if (fixed.right.length) {
    const wrong = fixed.right.filter((right) => !right).length;
    const next = fpt.button(`next misclassified (${wrong})`, () => {
      const from = shell.choice.example;
      for (let i = 1; i <= fixed.n_examples; i++) {
        const example = (from + i) % fixed.n_examples;
        if (!fixed.right[example]) { choose({ example, occluded: [] }); return; }
      }
    });
    next.node.disabled = !wrong;
    shell.bar.append(next.node);
  }
  add(fpt.select("layer", fixed.layers.map((one) => [one, String(one)]), (layer) => choose({ layer }, { asks: false })),
    (one) => one.set(shell.choice.layer));
  add(fpt.select("head", fixed.heads.map((one) => [one, String(one)]), (head) => choose({ head }, { asks: false })),
    (one) => one.set(shell.choice.head));
  if (fixed.overlays.length > 1) {
    add(fpt.select("show", fixed.overlays.map((one) => [one, one]), (overlay) => choose({ overlay })),
      (one) => one.set(shell.choice.overlay));
  }
  add(fpt.select("beside it", [["layer", "all heads of this layer"], ["head", "this head in all layers"],
    ["pinned", "pinned heads"], ["none", "no other heads"]], (multiples) => choose({ multiples }, { asks: false })),
  (one) => one.set(shell.choice.multiples));
  const pin = fpt.button("pin this head", () => {
    const { layer, head, pinned } = shell.choice, same = ([l, h]) => l === layer && h === head;
    const kept = pinned.some(same) ? pinned.filter((one) => !same(one)) : [...pinned, [layer, head]];
    choose({ pinned: kept, multiples: kept.length ? "pinned" : "layer" }, { asks: false });
  });
  shell.bar.append(pin.node);
  controls.push(() => pin.set(shell.choice.pinned.some(([l, h]) => l === shell.choice.layer && h === shell.choice.head)));
  add(fpt.select("scale to", [[0, "the largest weight"], [0.1, ".10"], [0.25, ".25"], [0.5, ".50"], [1, "1"]],
    (top) => choose({ top }, { asks: false })), (one) => one.set(shell.choice.top));
  if (fixed.live) {
    const paintMode = fpt.button("cover patches", () => choose({ painting: !shell.choice.painting }, { asks: false }));
    const uncover = fpt.button("uncover all", () => choose({ occluded: [] }));
    shell.bar.append(paintMode.node, uncover.node);
    controls.push(() => { paintMode.set(shell.choice.painting); uncover.node.disabled = !shell.choice.occluded.length; });
  }
  add(fpt.check("image beneath", (beneath) => choose({ beneath }, { asks: false })), (one) => one.set(shell.choice.beneath));
  const legend = fpt.element("span", { className: "fpt-scale" });
  shell.bar.append(legend);

  // The image.
  const patchAt = (x, y) => {
    const px = x / state.scale, py = y / state.scale;
    return boxes.findIndex(([top, left, h, w]) => py >= top && py < top + h && px >= left && px < left + w);
  };
  const toggled = (token) => {
    const { occluded } = shell.choice;
    return occluded.includes(token) ? occluded.filter((one) => one !== token) : [...occluded, token];
  };
  const canvas = fpt.canvas("The image. Arrow keys move over patches, Enter chooses the one that reads, o covers one.", {
    moved(dx, dy) {
      const [top, left, h, w] = boxes[state.cursor] || boxes[0];
      const next = boxes.findIndex((box) => box[0] === top + dy * h && box[1] === left + dx * w);
      if (next >= 0) state.cursor = next;
      sayPatch(state.cursor);
      draw();
    },
    entered(event) { if (event.key === "Enter") chooseQuery(state.cursor); else cover(state.cursor); },
    hovered(x, y, event) {
      const patch = patchAt(x, y);
      if (patch < 0) return;
      if (state.painted && event.buttons && !state.painted.has(patch)) { state.painted.add(patch); draw(); }
      sayPatch(patch);
    },
  });
  canvas.classList.add("fpt-image");
  canvas.addEventListener("keydown", (event) => { if (event.key === "o") cover(state.cursor); });
  canvas.addEventListener("pointerdown", (event) => {
    const patch = patchAt(event.offsetX, event.offsetY);
    if (patch < 0) return;
    state.cursor = patch;
    if (!shell.choice.painting) { chooseQuery(patch); return; }
    state.painted = new Set([patch]);
    canvas.setPointerCapture(event.pointerId);
    draw();
  });
  const lift = () => {
    if (!state.painted) return;
    const { occluded } = shell.choice, [first] = state.painted, off = occluded.includes(first);
    const next = off ? occluded.filter((one) => !state.painted.has(one)) : [...new Set([...occluded, ...state.painted])];
    state.painted = null;
    choose({ occluded: next.sort((a, b) => a - b) });
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  const cover = (patch) => {
    if (fixed.live) choose({ occluded: toggled(patch).sort((a, b) => a - b) });
    else shell.say("covering patches needs the model, not only its attention");
  };
  const chooseQuery = (query) => {
    if (fixed.queries.includes(query)) choose({ query });
    else shell.say(`what ${fixed.labels[query]} reads was not captured; captured: ${fixed.queries.map((q) => fixed.labels[q]).join(", ")}`);
  };

  const weight = (l, h, key) => state.rows[(l * fixed.heads.length + h) * nKeys + key];
  const place = () => [fixed.layers.indexOf(shell.choice.layer), fixed.heads.indexOf(shell.choice.head)];
  function sayPatch(patch) {
    const { overlay, query, occluded } = shell.choice, name = fpt.head(shell.choice.layer, shell.choice.head);
    const value = state.overlaid ? state.overlaid[patch] : weight(...place(), patch);
    const what = state.overlaid ? `${overlay} of ${fixed.labels[query]}` : `${name}: ${fixed.labels[query]} reads`;
    const told = Number.isFinite(value) ? fpt.number(value, 4) : "not seen";
    shell.say(`${what} ${fixed.labels[patch]}, ${told}${occluded.includes(patch) ? " (covered)" : ""}`);
  }

  // Pixels with patches shaded, at `scale` screen pixels a pixel.
  function picture(target, size, values, bounds, table, { marks = true } = {}) {
    const scale = Math.max(size / Math.max(height, width), 0.05), { choice } = shell;
    const context = fpt.sized(target, Math.round(width * scale), Math.round(height * scale));
    const image = new ImageData(width, height), pixels = image.data;
    const nChannels = images ? images.shape[3] : 1, start = images ? choice.example * height * width * nChannels : 0;
    const covered = new Set([...choice.occluded, ...(state.painted || [])]);
    const shade = new Array(height * width).fill(null), shown = boxes.map((_box, i) => (values ? values[i] : NaN));
    boxes.forEach(([top, left, h, w], i) => {
      if (!Number.isFinite(shown[i])) return;
      const entry = table[paint.step(shown[i], bounds)];
      for (let y = top; y < top + h; y++) for (let x = left; x < left + w; x++) shade[y * width + x] = entry;
    });
    for (let i = 0; i < height * width; i++) {
      const bright = (c) => images ? images.values[start + i * nChannels + (nChannels > 1 ? c : 0)] : 190;
      const grey = 0.2126 * bright(0) + 0.7152 * bright(1) + 0.0722 * bright(2);
      for (let c = 0; c < 3; c++) {
        const tint = (shade[i] >> (8 * c)) & 255;
        const base = shade[i] === null ? bright(c) : choice.beneath ? 0.3 * (64 + 0.7 * grey) + 0.7 * tint : tint;
        pixels[i * 4 + c] = base;
      }
      pixels[i * 4 + 3] = 255;
    }
    const bitmap = fpt.element("canvas", { width, height });
    bitmap.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, width * scale, height * scale);
    const at = ([top, left, h, w]) => [left * scale, top * scale, w * scale, h * scale];
    boxes.forEach((box, i) => {
      if (covered.has(i)) {
        context.fillStyle = "#808080";
        context.fillRect(...at(box));
        const [x, y, w, h] = at(box);
        context.strokeStyle = "#fff";
        context.lineWidth = 1;
        context.beginPath();
        context.moveTo(x, y); context.lineTo(x + w, y + h); context.moveTo(x + w, y); context.lineTo(x, y + h);
        context.stroke();
      } else if (fixed.causal && i > choice.query && values) {
        context.fillStyle = colour("--fpt-unreachable");
        context.globalAlpha = 0.55;
        context.fillRect(...at(box));
        context.globalAlpha = 1;
        paint.hatch(context, ...at(box), colour("--fpt-hatch"));
      }
      if (bounds.low < 0 && shown[i] < -0.04 * bounds.high) {  // the sign, told without colour
        const [x, y, w, h] = at(box);
        context.strokeStyle = "#1f2933";
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(x + w * 0.3, y + h / 2); context.lineTo(x + w * 0.7, y + h / 2);
        context.stroke();
      }
    });
    if (marks && scale * boxes[0][2] >= 6) {
      context.strokeStyle = "rgba(128,128,128,.45)";
      context.lineWidth = 0.5;
      for (const box of boxes) context.strokeRect(...at(box));
    }
    const readout = boxes[fixed.readout];
    if (marks && readout) {
      context.setLineDash([4, 3]);
      paint.box(context, ...at(readout), "#ffffff", 3);
      paint.box(context, ...at(readout), "#1f2933", 1.5);
      context.setLineDash([]);
    }
    if (boxes[choice.query]) paint.box(context, ...at(boxes[choice.query]), colour("--fpt-accent"), marks ? 3 : 2);
    if (marks && target.matches(":focus") && boxes[state.cursor]) paint.box(context, ...at(boxes[state.cursor]), "#1f2933", 1.5);
    return scale;
  }

  const imagePane = shell.pane("", fpt.element("h4"), canvas);
  const others = fpt.canvas("Other heads on the same image. Arrow keys choose one.", {
    moved(dx, dy) {
      const now = state.heads.findIndex(([layer, head]) => layer === shell.choice.layer && head === shell.choice.head);
      const next = state.heads[Math.min(Math.max(now + dx + dy * state.perLine, 0), state.heads.length - 1)];
      if (next) choose({ layer: next[0], head: next[1] }, { asks: false });
    },
    clicked(x, y) {
      const i = Math.floor(y / state.line) * state.perLine + Math.floor(x / state.step);
      if (state.heads[i]) choose({ layer: state.heads[i][0], head: state.heads[i][1] }, { asks: false });
    },
    hovered(x, y) {
      const i = Math.floor(y / state.line) * state.perLine + Math.floor(x / state.step);
      if (state.heads[i]) shell.say(describe(state.heads[i]));
    },
  });
  others.classList.add("fpt-multiples");
  const othersPane = shell.pane("other heads, on the same scale", others);
  const bars = fpt.element("table", { className: "fpt-bars" });
  const barsPane = fixed.live ? shell.pane("class probabilities", bars) : null;

  function describe([layer, head]) {
    const l = fixed.layers.indexOf(layer), h = fixed.heads.indexOf(head);
    const order = [...Array(nKeys).keys()].filter((key) => Number.isFinite(weight(l, h, key)))
      .sort((a, b) => weight(l, h, b) - weight(l, h, a)).slice(0, 3);
    return `${fpt.head(layer, head)}: ${fixed.labels[shell.choice.query]} reads `
      + order.map((key) => `${fixed.labels[key]} ${fpt.number(weight(l, h, key))}`).join(", ");
  }

  function drawOthers(bounds, table) {
    const { multiples, pinned, layer, head, overlay } = shell.choice;
    const heads = { layer: fixed.heads.map((one) => [layer, one]), head: fixed.layers.map((one) => [one, head]), pinned, none: [] }[multiples];
    state.heads = overlay === "attention" ? heads : [];
    othersPane.hidden = !state.heads.length;
    if (!state.heads.length) return;
    const size = 92, caption = 14, gap = 8, w = Math.round(width * size / Math.max(height, width)), h = Math.round(height * size / Math.max(height, width));
    const available = Math.max(shell.width - 60 - state.size - (fixed.live ? 300 : 20), 220);
    state.perLine = Math.max(2, Math.min(state.heads.length, Math.floor(available / (w + gap))));
    state.step = w + gap;
    state.line = h + caption + gap;
    const context = fpt.sized(others, state.perLine * state.step, Math.ceil(state.heads.length / state.perLine) * state.line);
    const small = fpt.element("canvas");
    context.imageSmoothingEnabled = false;
    state.heads.forEach(([l, one], i) => {
      const x = (i % state.perLine) * state.step, y = Math.floor(i / state.perLine) * state.line;
      const from = (fixed.layers.indexOf(l) * fixed.heads.length + fixed.heads.indexOf(one)) * nKeys;
      picture(small, size, state.rows.subarray(from, from + nKeys), bounds, table, { marks: false });
      context.drawImage(small, x, y + caption, w, h);
      context.fillStyle = colour("--fpt-ink");
      context.font = `${l === layer && one === head ? "700 " : ""}11px system-ui, sans-serif`;
      context.textBaseline = "middle";
      context.fillText(fpt.head(l, one), x, y + 7);
      if (l === layer && one === head) paint.box(context, x, y + caption, w, h, colour("--fpt-ink"), 2);
    });
    others.dataset.drawn = String(state.heads.length);
  }

  function drawBars() {
    const predicted = shell.model.get("predicted");
    if (!barsPane) return;
    bars.replaceChildren();
    if (!predicted) return;
    const { shown, intact, answer } = predicted, best = shown.indexOf(Math.max(...shown));
    const covered = shell.choice.occluded.length > 0;
    shown.forEach((share, i) => {
      const bar = fpt.element("span", { className: "fpt-share" }), before = fpt.element("span", { className: "fpt-before" });
      bar.style.width = `${Math.round(100 * share)}px`;
      before.style.left = `${Math.round(100 * intact[i])}px`;
      const cell = fpt.element("td", { className: "fpt-track" }, bar, ...(covered ? [before] : []));
      const words = `${(100 * share).toFixed(1)} %${covered ? ` (was ${(100 * intact[i]).toFixed(1)} %)` : ""}`;
      const name = `${i === best ? "▸ " : ""}${i}${i === answer ? " ✓" : ""}`;
      bars.append(fpt.element("tr", { className: i === best ? "fpt-best" : "" }, fpt.element("th", { scope: "row" }, name), cell,
        fpt.element("td", {}, words)));
    });
    bars.dataset.best = String(best);
    bars.dataset.of = String(predicted.example);
    const verdict = best === answer ? "right" : `wrong: it is ${answer}`;
    barsPane.firstChild.textContent = `class probabilities: ${best}, ${verdict}`;
  }

  function draw() {
    const { choice } = shell, rows = shell.model.get("rows"), overlaid = shell.model.get("overlaid");
    state.rows = fpt.decode(rows.values).values;
    state.overlaid = overlaid && !overlaid.error ? fpt.decode(overlaid.values).values : null;
    const wants = choice.overlay !== "attention" && overlaid;
    const bounds = wants && state.overlaid ? overlaid : { low: 0, high: choice.top || rows.top };
    const table = paint.table(fixed.scales[bounds.low < 0 ? "diverging" : "sequential"], colour("--fpt-unreachable"));
    const [l, h] = place(), from = (l * fixed.heads.length + h) * nKeys;
    const values = wants ? state.overlaid : state.rows.subarray(from, from + nKeys);
    state.size = Math.max(200, Math.min(420, (shell.width || 900) - 60));
    state.scale = picture(canvas, state.size, values, bounds, table);
    const reader = fixed.labels[choice.query], said = wants ? (overlaid.error || overlaid.words) : `what ${reader} reads, ${fpt.head(choice.layer, choice.head)}`;
    imagePane.querySelector("h4").textContent = said;
    paint.scale(legend, bounds, table, bounds.low < 0 ? "attribution" : wants ? "share" : "weight");
    drawOthers(bounds, table);
    drawBars();
    for (const show of controls) show();
    canvas.dataset.drawn = `${choice.example},${choice.layer},${choice.head},${choice.query},${choice.overlay}`;
  }
  canvas.addEventListener("focus", draw);
  canvas.addEventListener("blur", draw);
  for (const trait of ["rows", "overlaid", "predicted"]) shell.on(`change:${trait}`, () => shell.redraw());
  shell.help.textContent = "Click the patch that reads. Orange outline: it; dashed: the patch that is read out"
    + (fixed.causal ? "; hatched: later patches, which it cannot see." : ".") + " Attention is not by itself an explanation: cover a patch and see.";
  return draw;
}

const fptWidget = { render: (context) => fpt.render(context, patchExplorer) };
export default fptWidget;
