// Curves, and dots with intervals, as SVG that follows the theme.
// Not plotly: a FigureWidget sends and saves 5 MB for each chart, and without a kernel it follows no slider.
const curves = {
  MARGIN: { top: 22, right: 12, bottom: 36 },
  marks: 0,

  svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  },

  text(words, x, y, attributes = {}) { return curves.svg("text", { x, y, ...attributes }, String(words)); },

  // About `n` round numbers from `low` to `high`.
  ticks(low, high, n = 5) {
    if (!(high > low)) return [low];
    const rough = (high - low) / n, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 2.5, 5, 10].find((one) => one * unit >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found;
  },

  word(value) {
    if (!Number.isFinite(value)) return "–";
    if (Number.isInteger(value)) return String(value).replace("-", "−");
    const size = Math.abs(value);
    return (size >= 100 ? value.toFixed(0) : size < 0.001 ? value.toExponential(1) : String(+value.toFixed(size < 0.1 ? 4 : 3)))
      .replace("-", "−");
  },

  // Black is no colour on dark paper, and the others are lighter there.
  colour(style) {
    return style.colour === "#000000" ? "var(--fpt-ink)" : `color-mix(in srgb, ${style.colour} var(--fpt-hue, 100%), white)`;
  },

  dash(style, width) { return style.dash.map((one) => one * width).join(" "); },

  // One marker of a style around a place.
  marker(style, x, y, r = 3.5, hollow = false) {
    const p = {
      circle: `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`,
      square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`,
      diamond: `M${x},${y - r * 1.3}L${x + r * 1.3},${y}L${x},${y + r * 1.3}L${x - r * 1.3},${y}Z`,
      "triangle-up": `M${x},${y - r * 1.2}L${x + r * 1.2},${y + r}H${x - r * 1.2}Z`,
      "triangle-down": `M${x},${y + r * 1.2}L${x + r * 1.2},${y - r}H${x - r * 1.2}Z`,
      x: `M${x - r},${y - r}L${x + r},${y + r}M${x - r},${y + r}L${x + r},${y - r}`,
      cross: `M${x - r * 1.2},${y}H${x + r * 1.2}M${x},${y - r * 1.2}V${y + r * 1.2}`,
    }[style.marker];
    const open = hollow || ["x", "cross"].includes(style.marker);
    return curves.svg("path", {
      d: p, class: "fpt-marker", stroke: curves.colour(style), "stroke-width": open ? 1.6 : 1, fill: open ? "none" : curves.colour(style),
    });
  },

  swatch(style, { markers = false, faint = false } = {}) {
    const width = faint ? 1.2 : 2;
    const line = curves.svg("line", {
      x1: 1, x2: 29, y1: 7, y2: 7, stroke: curves.colour(style), "stroke-width": width,
      "stroke-dasharray": curves.dash(style, width), "stroke-opacity": faint ? 0.6 : 1,
    });
    const drawn = curves.svg("svg", { width: 30, height: 14, "aria-hidden": "true" }, line);
    if (markers) drawn.append(curves.marker(style, 15, 7));
    return drawn;
  },

  // Of more points than pixels, the lowest and highest of each pixel.
  thinned(x, y, nPixels) {
    if (x.length <= 2 * nPixels) return x.map((_, i) => i);
    const kept = [], each = x.length / nPixels;
    for (let p = 0; p < nPixels; p++) {
      let low = -1, high = -1;
      for (let i = Math.floor(p * each); i < Math.floor((p + 1) * each); i++) {
        if (y[i] === null) continue;
        if (low < 0 || y[i] < y[low]) low = i;
        if (high < 0 || y[i] > y[high]) high = i;
      }
      if (low >= 0) kept.push(...new Set([Math.min(low, high), Math.max(low, high)]));
    }
    return [...new Set([...kept, x.length - 1])];
  },

  // A path through places; broken where there is no value.
  path(x, y, toX, toY, nPixels) {
    let d = "", pen = "M";
    for (const i of curves.thinned(x, y, nPixels)) {
      if (y[i] === null || !Number.isFinite(y[i])) { pen = "M"; continue; }
      d += `${pen}${toX(x[i]).toFixed(1)},${toY(y[i]).toFixed(1)}`;
      pen = "L";
    }
    return d;
  },

  // The place of the value nearest to `at` in ascending `x`; -1 in an empty one.
  nearest(x, at) {
    let low = 0, high = x.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (x[middle] < at) low = middle; else high = middle; }
    return high < 0 ? -1 : Math.abs(x[low] - at) <= Math.abs(x[high] - at) ? low : high;
  },

  // Both lines of one run's quantity: the batch pale, the checks with markers; a run never checked, the batch alone.
  ofRun(run, quantity, series, { name = "", band = false } = {}) {
    const { batch, checks } = run, checked = checks.step.length > 0, found = [];
    const words = (what) => (name ? `${name}, ${what}` : what);
    if (batch.step.length) {
      found.push({ label: words("batch"), series, x: batch.step, y: batch[quantity], faint: checked });
    }
    if (checked) {
      const more = band && quantity === "accuracy" ? { low: checks.low, high: checks.high } : {};
      found.push({ label: words("validation"), series, x: checks.step, y: checks[quantity], markers: true, ...more });
    }
    return found;
  },

  // A line chart. `moved(x)` is told of a place chosen by click, drag or arrow; without it the chart keeps its own.
  // draw({ width, height, xTitle, yTitle, xRange, yRange, styles, lines, levels, cursor, xWords }): a line is
  // { label, series, x, y, low, high, markers, faint }, a level { at, label }; x ascends, null is no value.
  chart(label, { say = () => {}, moved } = {}) {
    const drawing = curves.svg("svg", { tabindex: 0, role: "application", "aria-label": label, class: "fpt-plot" });
    const key = fpt.element("div", { className: "fpt-key" });
    const node = fpt.element("div", { className: "fpt-chart" }, drawing, key);
    const clip = `fpt-clip-${curves.marks++}-${Math.random().toString(36).slice(2, 8)}`;
    let spec = null, drawn = null, own = null, places = null;

    const at = () => (moved ? spec.cursor : own ?? spec.cursor ?? null);
    const xs = () => [...new Set(spec.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const xWords = (x) => (spec.xWords ? spec.xWords(x) : `${spec.xTitle} ${curves.word(x)}`);
    const valueAt = (line, x) => { const i = curves.nearest(line.x, x); return i < 0 ? null : line.y[i]; };
    const told = (x) => `${xWords(x)}: ${spec.lines.map((line) => `${line.label || spec.yTitle} ${fpt.number(valueAt(line, x))}`).join("; ")}`;

    function go(x) {
      if (moved) moved(x); else { own = x; showCursor(); }
      say(told(x));
    }
    function fromPointer(event) {
      if (!places) return null;
      const box = drawing.getBoundingClientRect();
      const x = places.fromX((event.clientX - box.left) * (spec.width / box.width)), all = xs();
      return all.length ? all[curves.nearest(all, x)] : null;
    }
    drawing.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const all = spec ? xs() : [];
      if (!all.length) return;
      const here = curves.nearest(all, at() ?? all[0]);
      const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) { if (event.key === "Escape" && !moved) { own = null; showCursor(); } return; }
      event.preventDefault();
      go(all[Math.min(Math.max(to, 0), all.length - 1)]);
    });
    drawing.addEventListener("pointerdown", (event) => { const x = fromPointer(event); if (x !== null) go(x); });
    drawing.addEventListener("pointermove", (event) => {
      const x = fromPointer(event);
      if (x === null) return;
      if (!moved || event.buttons & 1) go(x); else say(told(x));
    });
    drawing.addEventListener("pointerleave", () => { if (!moved && !drawing.matches(":focus")) { own = null; showCursor(); } });

    function showCursor() {
      const x = at();
      places.cursor.replaceChildren();
      const shown = x !== null && x !== undefined && Number.isFinite(x);
      if (shown) {
        const px = places.toX(x);
        places.cursor.append(curves.svg("line", { x1: px, x2: px, y1: places.top, y2: places.bottom, class: "fpt-cursor" }));
      }
      spec.lines.forEach((line, i) => {
        const value = shown ? valueAt(line, x) : null, output = places.outputs[i];
        if (output) output.textContent = value === null ? "" : fpt.number(value);
        if (value === null || !Number.isFinite(value)) return;
        const near = line.x[curves.nearest(line.x, x)];
        places.cursor.append(curves.svg("circle", {
          cx: places.toX(near), cy: places.toY(value), r: 4.5, class: "fpt-here", stroke: curves.colour(spec.styles[line.series]),
        }));
      });
      drawing.dataset.cursor = shown ? String(x) : "";
    }

    function drawAll() {
      const { width, height, lines, levels = [], styles } = spec, { top, right, bottom } = curves.MARGIN;
      const [x0, x1] = spec.xRange[1] > spec.xRange[0] ? spec.xRange : [spec.xRange[0], spec.xRange[0] + 1];
      const [y0, y1] = spec.yRange[1] > spec.yRange[0] ? spec.yRange : [spec.yRange[0], spec.yRange[0] + 1];
      const yTicks = curves.ticks(y0, y1, Math.max(2, Math.floor(height / 45)));
      const left = 12 + 6.5 * Math.max(...yTicks.map((one) => curves.word(one).length));
      const toX = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
      const toY = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
      const all = [];
      for (const one of yTicks) {
        all.push(curves.svg("line", { x1: left, x2: width - right, y1: toY(one), y2: toY(one), class: "fpt-gridline" }));
        all.push(curves.text(curves.word(one), left - 5, toY(one) + 4, { "text-anchor": "end" }));
      }
      for (const one of curves.ticks(x0, x1, Math.max(2, Math.floor((width - left) / 70)))) {
        all.push(curves.svg("line", { x1: toX(one), x2: toX(one), y1: height - bottom, y2: height - bottom + 4, class: "fpt-axis" }));
        all.push(curves.text(curves.word(one), toX(one), height - bottom + 15, { "text-anchor": "middle" }));
      }
      all.push(curves.svg("path", { d: `M${left},${top}V${height - bottom}H${width - right}`, class: "fpt-axis", fill: "none" }));
      all.push(curves.text(spec.yTitle, 2, 12, { class: "fpt-axis-title" }));
      all.push(curves.text(spec.xTitle, (left + width - right) / 2, height - 4, { "text-anchor": "middle", class: "fpt-axis-title" }));
      const area = curves.svg("rect", { x: left, y: top - 7, width: Math.max(1, width - left - right + 8), height: height - top - bottom + 14 });
      all.push(curves.svg("clipPath", { id: clip }, area));
      const inside = curves.svg("g", { "clip-path": `url(#${clip})` });
      for (const { at: level } of levels) {
        inside.append(curves.svg("line", { x1: left, x2: width - right, y1: toY(level), y2: toY(level), class: "fpt-level" }));
      }
      const nPixels = Math.ceil(width);
      for (const line of lines) {
        const look = styles[line.series], stroke = curves.colour(look), wide = line.faint ? 1.2 : 2;
        if (line.low) {
          const there = line.x.map((_, i) => i).filter((i) => line.low[i] !== null && line.high[i] !== null);
          const edge = (values, order) => order.map((i) => `${toX(line.x[i]).toFixed(1)},${toY(values[i]).toFixed(1)}`).join(" ");
          const points = `${edge(line.low, there)} ${edge(line.high, [...there].reverse())}`;
          inside.append(curves.svg("polygon", { points, fill: stroke, class: "fpt-band" }));
        }
        inside.append(curves.svg("path", {
          d: curves.path(line.x, line.y, toX, toY, nPixels), fill: "none", stroke, "stroke-width": wide, class: "fpt-line",
          "stroke-dasharray": curves.dash(look, wide), "stroke-opacity": line.faint ? 0.6 : 1,
        }));
        if (!line.markers) continue;
        const every = Math.max(1, Math.ceil(line.x.length / Math.max(4, (width - left) / 14)));
        line.x.forEach((x, i) => {
          if (i % every === 0 && line.y[i] !== null) inside.append(curves.marker(look, toX(x), toY(line.y[i])));
        });
      }
      all.push(inside);
      const cursor = curves.svg("g", { "clip-path": `url(#${clip})` });
      all.push(cursor);
      drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
      drawing.setAttribute("width", width);
      drawing.setAttribute("height", height);
      drawing.replaceChildren(...all);
      const fromX = (px) => x0 + ((px - left) / (width - left - right)) * (x1 - x0);
      places = { toX, toY, fromX, top, bottom: height - bottom, cursor, outputs: [] };
      key.replaceChildren();
      key.style.maxWidth = `${width}px`;
      lines.forEach((line, i) => {
        if (!line.label) return;
        const output = places.outputs[i] = fpt.element("b", {});
        key.append(fpt.element("span", {}, curves.swatch(styles[line.series], line), line.label, " ", output));
      });
      for (const { label: words } of levels) {
        const dashed = curves.svg("line", { x1: 1, x2: 29, y1: 7, y2: 7, class: "fpt-level" });
        key.append(fpt.element("span", {}, curves.svg("svg", { width: 30, height: 14, "aria-hidden": "true" }, dashed), words));
      }
      drawing.dataset.lines = String(lines.length);
    }

    return {
      node, drawing,
      // Draws what has changed: everything for a new `spec.lines`, size or range, else the cursor alone.
      draw(wanted) {
        spec = wanted;
        const same = drawn && ["width", "height", "lines", "levels", "xTitle", "yTitle"].every((name) => drawn[name] === spec[name])
          && ["xRange", "yRange"].every((name) => String(drawn[name]) === String(spec[name]));
        if (!same) drawAll();
        drawn = spec;
        showCursor();
      },
    };
  },

  // Rows of values with intervals, beside levels; draw({ width, rows, range, levels, styles, xTitle }): a row is
  // { label, value, low, high, series, words }.
  dots(label) {
    const drawing = curves.svg("svg", { role: "img", "aria-label": label, class: "fpt-plot" });
    const node = fpt.element("div", { className: "fpt-chart" }, drawing);
    return {
      node, drawing,
      draw({ width, rows, range, levels, styles, xTitle }) {
        const left = Math.min(width * 0.38, 12 + 6.3 * Math.max(0, ...rows.map((row) => row.label.length)));
        const right = 22 + 6.3 * Math.max(0, ...rows.map((row) => row.words.length)), step = 22;
        const toX = (x) => left + ((x - range[0]) / (range[1] - range[0])) * (width - left - right);
        const lanes = [], named = [...levels].sort((a, b) => a.at - b.at).map(({ at, label: words }) => {
          const half = 3.1 * words.length, middle = Math.min(Math.max(toX(at), left + half), width - half - 2);
          let lane = lanes.findIndex((end) => end < middle - half - 6);
          if (lane < 0) lane = lanes.push(0) - 1;
          lanes[lane] = middle + half;
          return { at, words, middle, lane };
        });
        const top = 6 + 14 * lanes.length, bottom = top + step * rows.length, height = bottom + 36, all = [];
        for (const { at, words, middle, lane } of named) {
          all.push(curves.svg("line", { x1: toX(at), x2: toX(at), y1: 4 + 14 * (lane + 1), y2: bottom, class: "fpt-level" }));
          all.push(curves.text(words, middle, 12 + 14 * lane, { "text-anchor": "middle", class: "fpt-level-name" }));
        }
        for (const one of curves.ticks(...range, 5)) {
          all.push(curves.svg("line", { x1: toX(one), x2: toX(one), y1: bottom, y2: bottom + 4, class: "fpt-axis" }));
          all.push(curves.text(curves.word(one), toX(one), bottom + 15, { "text-anchor": "middle" }));
        }
        all.push(curves.svg("path", { d: `M${left},${top}V${bottom}H${width - right}`, class: "fpt-axis", fill: "none" }));
        all.push(curves.text(xTitle, (left + width - right) / 2, height - 4, { "text-anchor": "middle", class: "fpt-axis-title" }));
        rows.forEach((row, i) => {
          const y = top + (i + 0.5) * step, look = styles[row.series], n = Math.max(8, Math.floor((left - 12) / 6.3));
          const name = row.label.length > n ? `${row.label.slice(0, n - 1)}…` : row.label;
          all.push(curves.text(name, left - 6, y + 4, { "text-anchor": "end" }));
          all.push(curves.svg("path", {
            d: `M${toX(row.low)},${y}H${toX(row.high)}M${toX(row.low)},${y - 4}v8M${toX(row.high)},${y - 4}v8`,
            stroke: curves.colour(look), "stroke-width": 1.6, fill: "none",
          }), curves.marker(look, toX(row.value), y, 4));
          all.push(curves.text(row.words, width - right + 14, y + 4, {}));
        });
        drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
        drawing.setAttribute("width", width);
        drawing.setAttribute("height", height);
        drawing.replaceChildren(...all);
        drawing.dataset.rows = String(rows.length);
      },
    };
  },
};
