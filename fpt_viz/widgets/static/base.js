// What every widget's page does alike: controls that the browser already knows, messages, and asking Python.
const fpt = {
  WAIT_MS: 10000,

  // A packed array (see base.py) as { shape, values }; null stays null.
  decode(view) {
    if (!view) return null;
    const { buffer, byteOffset, byteLength } = view.data;
    const type = { Uint8Array, Float32Array, Int32Array }[view.type];
    const start = byteOffset % type.BYTES_PER_ELEMENT ? buffer.slice(byteOffset, byteOffset + byteLength) : buffer;
    const values = new type(start, start === buffer ? byteOffset : 0, byteLength / type.BYTES_PER_ELEMENT);
    return { shape: view.shape, values };
  },

  element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made && !name.startsWith("aria")) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  },

  // The word of one weight, as in ".583"; three decimals tell apart what 8 bits do.
  number(value, digits = 3) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? "0" : text.replace(/^(-?)0\./, "$1.").replace("-", "−");
  },

  // An end of a scale: two decimals, or two digits of what is smaller.
  bound(value) {
    const small = value !== 0 && Math.abs(value) < 0.095;
    return small ? value.toPrecision(2).replace("-", "−") : fpt.number(value, 2);
  },

  head(layer, head) { return `L${layer}H${head}`; },

  colour(el, name) { return getComputedStyle(el).getPropertyValue(name).trim(); },

  field(label, control) {
    return fpt.element("label", { className: "fpt-field" }, fpt.element("span", {}, label), control);
  },

  // Each control returns { node, set }; `set` shows a value without telling anybody.
  select(label, options, chosen) {
    const control = fpt.element("select");
    for (const [value, text] of options) control.append(fpt.element("option", { value: String(value) }, text));
    control.addEventListener("change", () => chosen(options[control.selectedIndex][0]));
    const set = (value) => { control.selectedIndex = options.findIndex(([one]) => one === value); };
    return { node: fpt.field(label, control), control, set };
  },

  range(label, { min, max, step = 1, words = String }, chosen) {
    const told = fpt.element("output");
    const control = fpt.element("input", { type: "range", min, max, step });
    control.addEventListener("input", () => { told.textContent = words(+control.value); chosen(+control.value); });
    const node = fpt.field(label, control);
    node.append(told);
    return { node, control, set(value) { control.value = value; told.textContent = words(+value); } };
  },

  // A number, or null where the field is empty.
  quantity(label, { min = 0, max = 1, step = "any", empty = "" }, chosen) {
    const control = fpt.element("input", { type: "number", min, max, step, placeholder: empty });
    control.style.width = "6em";
    control.addEventListener("change", () => {
      const value = control.value === "" ? null : +control.value;
      control.setCustomValidity(value !== null && !(value >= min && value <= max) ? `${min} to ${max}` : "");
      if (control.reportValidity()) chosen(value);
    });
    return { node: fpt.field(label, control), control, set(value) { control.value = value ?? ""; } };
  },

  check(label, chosen) {
    const control = fpt.element("input", { type: "checkbox" });
    control.addEventListener("change", () => chosen(control.checked));
    return { node: fpt.field(label, control), control, set(value) { control.checked = Boolean(value); } };
  },

  button(label, pressed, attributes = {}) {
    const node = fpt.element("button", { type: "button", ...attributes }, label);
    node.addEventListener("click", pressed);
    return { node, set(on) { node.setAttribute("aria-pressed", String(Boolean(on))); } };
  },

  // A canvas that takes the keyboard: arrows call `moved(dx, dy)`, Enter and space call `entered`.
  canvas(label, { moved, entered, hovered, clicked, left } = {}) {
    const node = fpt.element("canvas", { tabIndex: 0, role: "application", "aria-label": label });
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    node.addEventListener("keydown", (event) => {
      if (arrows[event.key] && moved) { moved(...arrows[event.key]); event.preventDefault(); }
      else if ((event.key === "Enter" || event.key === " ") && entered) { entered(event); event.preventDefault(); }
      event.stopPropagation();  // a notebook has shortcuts of its own
    });
    const at = (event) => {
      const box = node.getBoundingClientRect();
      const scale = node.logicalWidth ? node.logicalWidth / box.width : 1;
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, event];
    };
    if (hovered) node.addEventListener("pointermove", (event) => hovered(...at(event)));
    if (left) node.addEventListener("pointerleave", left);
    if (clicked) node.addEventListener("click", (event) => clicked(...at(event)));
    return node;
  },

  // Sizes a canvas for the screen's own pixels, clears it, and returns its context in logical pixels.
  sized(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.logicalWidth = width;
    canvas.style.width = `${width}px`;
    canvas.style.aspectRatio = `${width} / ${height}`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  },

  // The frame of a widget: message, controls, panes, status. `build(shell)` fills it and returns `draw()`.
  render({ model, el }, build) {
    const undo = [];
    const shell = {
      model, el,
      root: fpt.element("section", { className: "fpt" }),
      bar: fpt.element("div", { className: "fpt-bar" }),
      panes: fpt.element("div", { className: "fpt-panes" }),
      notice: fpt.element("div", { className: "fpt-notice", role: "alert" }),
      status: fpt.element("div", { className: "fpt-status", role: "status" }),
      help: fpt.element("div", { className: "fpt-help" }),
      get choice() { return model.get("choice"); },
      get fixed() { return model.get("fixed"); },
      array(name) { return fpt.decode(model.get(name)); },
      on(event, call) { model.on(event, call); undo.push(() => model.off(event, call)); },
      say(words) { shell.status.textContent = words; },
      warn(words) { shell.notice.textContent = words; },
      // Takes the fields chosen; where Python must answer, waits for it and says so if it does not come.
      choose(fields, { asks = true } = {}) {
        shell.open = asks || shell.open;  // old numbers are not drawn under a new name
        model.set("choice", { ...model.get("choice"), ...fields });
        model.save_changes();
        if (!asks) return;
        clearTimeout(shell.waiting);
        shell.waiting = setTimeout(() => {
          if (!shell.root.isConnected) return;
          shell.root.classList.add("fpt-waiting");
          shell.warn("Python has not answered for 10 seconds: the kernel is busy, or it is gone. What is shown is old.");
        }, fpt.WAIT_MS);
      },
      // One question to Python, such as for an exact number; `call` gets the reply, if it comes.
      ask(question, call) {
        const id = (shell.asked = (shell.asked || 0) + 1);
        shell.pending = { id, call };
        model.send({ ...question, id });
      },
      pane(title, ...nodes) {
        const made = fpt.element("div", { className: "fpt-pane" });
        if (title) made.append(fpt.element("h4", {}, title));
        made.append(...nodes);
        shell.panes.append(made);
        return made;
      },
    };
    const alt = fpt.element("div", { className: "fpt-hidden" }, model.get("alt"));
    shell.root.append(alt, shell.notice, shell.bar, shell.panes, shell.status, shell.help);
    shell.root.addEventListener("keydown", (event) => {  // a notebook has shortcuts of its own, such as x and arrows
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    });
    shell.root.setAttribute("aria-label", model.get("fixed").title || "fpt_viz widget");
    shell.root.dataset.widget = model.get("fixed").id;
    el.append(shell.root);
    fpt.hideStill(model.get("fixed").id);

    const draw = build(shell);
    let due = 0;
    const redraw = () => { due ||= requestAnimationFrame(() => { due = 0; if (shell.root.isConnected) draw(); }); };
    shell.redraw = redraw;
    const settled = () => {
      clearTimeout(shell.waiting);
      shell.open = false;
      shell.root.classList.remove("fpt-waiting");
      alt.textContent = model.get("alt");
      shell.warn(model.get("notice"));
      redraw();
    };
    shell.on("change:answered", settled);
    shell.on("change:notice", () => shell.warn(model.get("notice")));
    shell.on("change:choice", () => shell.open || redraw());
    shell.on("msg:custom", (reply) => {
      if (shell.pending && reply.id === shell.pending.id) shell.pending.call(reply);
    });
    shell.on("comm_live_update", () => shell.warn("The kernel of this widget is gone: run the cell again."));
    shell.warn(model.get("notice"));

    const resized = new ResizeObserver(() => {
      if (shell.width !== el.clientWidth) { shell.width = el.clientWidth; redraw(); }
    });
    resized.observe(el);
    const themed = new MutationObserver(redraw);
    themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", redraw);
    shell.width = el.clientWidth;
    draw();
    shell.root.dataset.ready = "true";
    return () => {
      clearTimeout(shell.waiting);
      cancelAnimationFrame(due);
      resized.disconnect();
      themed.disconnect();
      scheme.removeEventListener("change", redraw);
      for (const one of undo) one();
      shell.root.remove();
      const { id } = model.get("fixed");
      if (![...document.querySelectorAll("[data-widget]")].some((one) => one.dataset.widget === id)) {
        document.getElementById(`${id}-still`)?.remove();  // no view is left: the still picture shows again
      }
    };
  },

  // The still picture that follows a widget in a notebook is for pages in which no widget runs.
  hideStill(id) {
    const name = `${id}-still`;
    if (document.getElementById(name)) return;
    const rule = `.${name} { display: none; } .jp-OutputArea-child:has(.${name}) { display: none; }`;
    document.head.append(fpt.element("style", { id: name }, rule));
  },
};
