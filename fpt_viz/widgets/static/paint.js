// Painting of attention: many patterns at once, one pattern with its tokens, lines between tokens, and their scale.
const paint = {
  BLANK: 255,  // no value: padding, or a token that cannot be seen

  // 256 colours of a scale given as evenly spaced "#rrggbb" stops; the last entry is for BLANK.
  table(stops, blank) {
    const parse = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
    const colours = stops.map(parse), found = new Uint32Array(256);
    for (let i = 0; i < 255; i++) {
      const place = (i / 254) * (colours.length - 1), low = Math.min(Math.floor(place), colours.length - 2);
      const [r, g, b] = colours[low].map((one, c) => Math.round(one + (colours[low + 1][c] - one) * (place - low)));
      found[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    const [r, g, b] = parse(blank);
    found[255] = (255 << 24) | (b << 16) | (g << 8) | r;
    return found;
  },

  // One bitmap of all patterns `[layer head query key]`, a row of heads below the other.
  mosaic({ shape: [nLayers, nHeads, nQueries, nKeys], values }, table, canvas = document.createElement("canvas")) {
    canvas.width = nHeads * nKeys;
    canvas.height = nLayers * nQueries;
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    let from = 0;
    for (let layer = 0; layer < nLayers; layer++) {
      for (let head = 0; head < nHeads; head++) {
        for (let query = 0; query < nQueries; query++) {
          let to = ((layer * nQueries + query) * nHeads + head) * nKeys;
          for (let key = 0; key < nKeys; key++) pixels[to++] = table[values[from++]];
        }
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  },

  // 8 bits of `value` on a scale; the same rule as in _patterns.py.
  step(value, { low, high }) {
    if (!Number.isFinite(value)) return paint.BLANK;
    return Math.round(Math.min(Math.max((value - low) / (high - low), 0), 1) * 254);
  },

  css(entry) { return `rgb(${entry & 255},${(entry >> 8) & 255},${(entry >> 16) & 255})`; },

  // "#000" or "#fff", whichever reads better on a colour of the table.
  on(entry) {
    const linear = [entry & 255, (entry >> 8) & 255, (entry >> 16) & 255].map((one) => {
      const c = one / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000" : "#fff";
  },

  hatch(context, x, y, width, height, colour) {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    for (let d = -height; d < width; d += 6) {
      context.moveTo(x + d, y + height);
      context.lineTo(x + d + height, y);
    }
    context.stroke();
    context.restore();
  },

  // Every how many tokens a label has room.
  stride(n, cell, least = 11) { return Math.max(1, Math.ceil(least / Math.max(cell, 0.01))); },

  // The text in at most `width` pixels, its middle left out.
  fitted(context, text, width) {
    if (context.measureText(text).width <= width) return text;
    let keep = text.length;
    while (keep > 2 && context.measureText(`${text.slice(0, keep)}…`).width > width) keep--;
    return `${text.slice(0, keep)}…`;
  },

  // One pattern with its tokens. Returns where cells lie: { x, y, cell, rows, columns, at(px, py) }.
  pattern(canvas, { rows, columns, valueAt, rowLabels, columnLabels, scale, table, ink, size, boxed, ahead, chosen,
    accent, hatch, sameScale }) {
    const probe = canvas.getContext("2d");
    probe.font = "11px system-ui, sans-serif";
    const widest = (labels) => Math.min(90, Math.max(0, ...labels.map((one) => probe.measureText(one).width)));
    const leftRoom = widest(rowLabels) + 24, topRoom = widest(columnLabels) + 24;
    const cell = Math.max(sameScale || 0, Math.min((size - leftRoom) / columns, Math.max(size - topRoom, 120) / rows, 44));
    const width = leftRoom + cell * columns + 4, height = topRoom + cell * rows + 4;
    const context = fpt.sized(canvas, Math.ceil(width), Math.ceil(height));
    const bitmap = document.createElement("canvas");
    bitmap.width = columns;
    bitmap.height = rows;
    const image = bitmap.getContext("2d").createImageData(columns, rows), pixels = new Uint32Array(image.data.buffer);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) pixels[r * columns + c] = table[paint.step(valueAt(r, c), scale)];
    }
    bitmap.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, leftRoom, topRoom, cell * columns, cell * rows);
    for (let r = 0; ahead && r < rows; r++) {
      let first = -1;
      for (let c = 0; c <= columns; c++) {
        const hidden = c < columns && ahead(r, c);
        if (hidden && first < 0) first = c;
        if (!hidden && first >= 0) {
          paint.hatch(context, leftRoom + first * cell, topRoom + r * cell, (c - first) * cell, cell, hatch);
          first = -1;
        }
      }
    }
    context.strokeStyle = ink;
    context.lineWidth = 0.5;
    context.strokeRect(leftRoom, topRoom, cell * columns, cell * rows);
    context.fillStyle = ink;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let r = 0, every = paint.stride(rows, cell); r < rows; r += every) {
      context.fillText(paint.fitted(context, rowLabels[r], 90), leftRoom - 4, topRoom + (r + 0.5) * cell);
    }
    for (let c = 0, every = paint.stride(columns, cell); c < columns; c += every) {
      context.save();
      context.translate(leftRoom + (c + 0.5) * cell, topRoom - 4);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(paint.fitted(context, columnLabels[c], 90), 0, 0);
      context.restore();
    }
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "left";
    context.fillText("key (is read) →", leftRoom, 8);
    context.save();
    context.translate(8, topRoom);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText("← query (reads)", 0, 0);
    context.restore();
    for (const [r, c] of boxed || []) paint.box(context, leftRoom + c * cell, topRoom + r * cell, cell, cell, accent, 1.5);
    if (chosen && chosen[0] >= 0 && chosen[0] < rows) {
      paint.box(context, leftRoom, topRoom + chosen[0] * cell, cell * columns, cell, ink, 1.5);
      if (chosen[1] >= 0) {
        paint.box(context, leftRoom + chosen[1] * cell, topRoom + chosen[0] * cell, cell, cell, ink, 2.5);
      }
    }
    return {
      x: leftRoom, y: topRoom, cell, rows, columns,
      at(px, py) {
        const c = Math.floor((px - leftRoom) / cell), r = Math.floor((py - topRoom) / cell);
        return r >= 0 && r < rows && c >= 0 && c < columns ? [r, c] : null;
      },
    };
  },

  box(context, x, y, width, height, colour, line) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(x + line / 2, y + line / 2, width - line, height - line);
  },

  // Lines from queries (left) to keys (right), the wider and darker the larger the weight.
  lines(canvas, { tokens, queries, valueAt, scale, table, ink, muted, size, chosen, least }) {
    const room = Math.min(110, size / 3), step = Math.max(4, Math.min(20, 640 / tokens.length));
    const height = 22 + step * tokens.length, width = Math.min(size, 420);
    const context = fpt.sized(canvas, width, height), y = (token) => 22 + (token + 0.5) * step;
    const drawn = [];
    queries.forEach((token, r) => {
      if (token < 0 || (chosen >= 0 && chosen !== r)) return;
      for (let key = 0; key < tokens.length; key++) {
        const value = valueAt(r, key);
        if (Number.isFinite(value) && Math.abs(value) >= least) drawn.push([Math.abs(value), value, token, key]);
      }
    });
    drawn.sort((a, b) => a[0] - b[0]);
    const most = Math.max(Math.abs(scale.low), Math.abs(scale.high));
    for (const [size_, value, token, key] of drawn) {
      const share = Math.min(size_ / most, 1);
      context.strokeStyle = paint.css(table[Math.max(paint.step(value, scale), scale.low < 0 ? 0 : 90)]);
      context.globalAlpha = 0.35 + 0.65 * share;
      context.lineWidth = 0.75 + 5 * share;
      context.setLineDash(value < 0 ? [5, 3] : []);
      context.beginPath();
      context.moveTo(room, y(token));
      context.bezierCurveTo(width / 2, y(token), width / 2, y(key), width - room, y(key));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.font = "600 11px system-ui, sans-serif";
    context.fillStyle = ink;
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.fillText("query (reads)", room - 4, 9);
    context.textAlign = "left";
    context.fillText("key (is read)", width - room + 4, 9);
    const every = paint.stride(tokens.length, step);
    tokens.forEach((text, token) => {
      if (token % every) return;
      const row = queries.indexOf(token);
      context.font = `${chosen >= 0 && row === chosen ? "700 " : ""}11px system-ui, sans-serif`;
      context.textAlign = "left";
      context.fillStyle = ink;
      context.fillText(paint.fitted(context, text, room - 8), width - room + 4, y(token));
      context.textAlign = "right";
      context.fillStyle = row < 0 ? muted : ink;
      if (row >= 0) context.fillText(paint.fitted(context, text, room - 8), room - 4, y(token));
    });
    return {
      at(px, py) {
        const token = Math.floor((py - 22) / step);
        if (token < 0 || token >= tokens.length) return null;
        return px < width / 2 ? { query: queries.indexOf(token) } : { key: token };
      },
    };
  },

  // The scale beside its ends.
  scale(holder, { low, high }, table, words) {
    let [bar] = holder.getElementsByTagName("canvas");
    if (!bar) {
      bar = fpt.element("canvas", { role: "img", "aria-label": "colour scale" });
      holder.replaceChildren(fpt.element("span"), bar, fpt.element("span"));
    }
    const context = fpt.sized(bar, 120, 12);
    for (let i = 0; i < 120; i++) {
      context.fillStyle = paint.css(table[Math.round((i / 119) * 254)]);
      context.fillRect(i, 0, 1.5, 12);
    }
    holder.firstChild.textContent = `${words} ${fpt.bound(low)}`;
    holder.lastChild.textContent = fpt.bound(high);
  },
};
